"""The Slurm script, run by bash: two hosts in place of nodes, and a stand-in for srun.

Each host sees its own processes only, because symmetric-run ends with `ray stop`, which kills every
Ray it sees; and each has its own disk, because nodes need not share one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sgnray.cli import main

from .disturbed import SMALL
from .hosts import hosts

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SCRIPT = Path(main.__file__).parents[1] / ".github" / "cluster" / "slurm.sh"

_SCONTROL = "#!/bin/bash\nprintf '%s\\n' {addresses}\n"
_SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
on() {{
    ip netns exec "$1" unshare --mount --pid --fork --kill-child --mount-proc bash -c '
        set -e
        mkdir -p "$RAY_TMPDIR" && mount -t tmpfs none "$RAY_TMPDIR"
        [[ $1 == {head} ]] || {{ mount -t tmpfs none {data} && mount -t tmpfs none {runs}; }}
        "${{@:2}}" || exit $?' bash "$@"
}}
on {other} "$@" >{output} 2>&1 &
on {head} "$@" && wait $!
"""


@pytest.fixture
def nodes():
    with hosts(2) as built:
        yield built


def test_a_slurm_job_trains_on_two_nodes_that_share_no_disk(nodes, tiny_folder, tmp_path):
    head, other = nodes
    runs, output = tmp_path / "runs", tmp_path / "other.txt"
    for folder in (tmp_path / ".venv" / "bin", tmp_path / "bin", runs):
        folder.mkdir(parents=True)
    python = Path(sys.executable).parent
    (tmp_path / ".venv" / "bin" / "activate").write_text(f'PATH="{python}:$PATH"\n')
    stand_ins = {
        "scontrol": _SCONTROL.format(addresses=f"{head.address} {other.address}"),
        "srun": _SRUN.format(
            head=head.name, other=other.name, data=tiny_folder, runs=runs, output=output
        ),
    }
    for name, text in stand_ins.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)

    job = f"sgn{os.getpid()}"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SGNRAY_CACHE": str(tmp_path / "cache"),
        "RAY_gcs_rpc_server_reconnect_timeout_s": "5",  # the other node ends sooner, not in 60 s
        "SLURM_JOB_ID": job,
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_ON_NODE": "2",
    }
    options = ["--data", tiny_folder, "--runs", runs, "--name", "run", "--device", "cpu"]
    done = subprocess.run(
        ["bash", SCRIPT, *options, "train.num_epochs=2", *SMALL],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    if output.exists():
        said += output.read_text()
    assert done.returncode == 0, said
    Path(f"/tmp/ray-{job}").rmdir()  # empty: what was in it ended with the hosts
    assert "using the Ray cluster at" in said
    made = json.loads((runs / "run" / "environment.json").read_text())
    # A node with room for both does not get both, even if the other one joins later.
    assert (made["workers"], made["threads"]) == (2, 2)
    assert len((runs / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    assert (runs / "run" / "report.json").exists()
    # The other node had a worker: it fetched the dataset, which only the first one has.
    assert list((tmp_path / "cache").rglob("clips.arrow")) != []
    assert (head.pids(), other.pids()) == ([], [])
