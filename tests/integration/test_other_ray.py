"""Training while another Ray starts on the same machine, which has nothing to do with it."""

from __future__ import annotations

import pytest

from .disturbed import SMALL
from .hosts import hosts

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Such as a notebook; its dashboard is at the default address.
OTHER = "import ray, time; ray.init('local', num_cpus=1); print('up', flush=True); time.sleep(900)"
SCRIPT = """
"${@:3}" >"$1/log.txt" 2>&1 & run=$!
until grep -q "epoch " "$1/log.txt"; do sleep 0.2; kill -0 $run || exit 9; done
python -c "$2" >"$1/other.txt" & other=$!
until grep -q up "$1/other.txt"; do sleep 0.2; kill -0 $other || exit 8; done
sleep 15  # Ray Train asks every second
kill -0 $run
"""


@pytest.fixture
def host():
    with hosts(1) as (built,):
        yield built


def test_its_dashboard_does_not_end_a_run(host, tiny_folder, tmp_path):
    """Both see each other's processes only, as they do on a machine without a third Ray."""
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    train = ["sgn", "train", "--case", "cv", "--data", str(tiny_folder), "--device", "cpu"]
    options = ["--address", "local", "--workers", "2", "--runs", str(tmp_path / "runs"), *SMALL]
    command = [*train, *options, "train.num_epochs=100000"]
    run = host.start([*alone, "bash", "-c", SCRIPT, "bash", str(tmp_path), OTHER, *command])
    assert run.wait(600) == 0, (tmp_path / "log.txt").read_text()[-2000:]
