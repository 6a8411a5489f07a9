"""Training nodes that do not share a disk with the driver fetch the dataset once."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sgnray.config import load_recipe
from sgnray.data.store import open_dataset
from sgnray.tune.folds import Folds
from sgnray.tune.plan import shorten
from sgnray.tune.trials import Record, Reported, TrialTable

from .disturbed import (
    num_epochs,
    train_command,
    tune_command,
    wait_for_end,
    wait_for_epoch,
    wait_until,
)
from .hosts import hosts

pytestmark = pytest.mark.ray

FETCH = """
import ray, sys
from pathlib import Path
from sgnray.data.fetch import SharedDataset
ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
dataset = SharedDataset.of(Path(sys.argv[1]))
unseen = SharedDataset(Path("/absent"), dataset.identity, dataset.file_server)
here = ray.remote(lambda shared: str(shared.local_dir()))
print(ray.get(here.remote(dataset)))
print(*set(ray.get([here.remote(unseen) for _ in range(3)])))
"""


def test_a_dataset_that_a_machine_does_not_have_is_fetched_once(tiny_folder, tmp_path):
    environment = os.environ | {"SGNRAY_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", FETCH, str(tiny_folder)],
        env=environment, capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    seen, fetched = done.stdout.splitlines()[-2:]
    assert Path(seen) == tiny_folder.resolve()
    assert Path(fetched).is_relative_to(tmp_path / "cache")
    assert (Path(fetched) / "clips.arrow").read_bytes() == (
        tiny_folder / "clips.arrow"
    ).read_bytes()


@pytest.fixture
def two_hosts(tmp_path, request):
    """A head and another host, which do not share the folder `disk`; each has its own cache."""
    (tmp_path / "disk").mkdir()
    with hosts(2) as (head, other):
        other.hidden = tmp_path / "disk"
        head.start_head(num_cpus=getattr(request, "param", 1))
        other.join(head, SGNRAY_CACHE=str(tmp_path / "cache"))
        yield head, other


@pytest.mark.slow
def test_two_hosts_with_disks_of_their_own(two_hosts, tiny_folder, tmp_path, monkeypatch):
    """Train, resume, tune and eval: the other host sees neither the dataset nor the runs."""
    head, disk = two_hosts[0], tmp_path / "disk"
    data, run, output = disk / "data", disk / "runs" / "run", disk / "out.txt"
    shutil.copytree(tiny_folder, data / "synth")

    # The driver's temporary files are on its own disk, too.
    (disk / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(disk / "tmp"))

    def start(command, **settings):
        with output.open("ab") as out:
            return head.start(command, cwd=disk, **{"stdout": out, "stderr": out, **settings})

    # Two workers of one CPU each, and so both hosts.
    both = ("--workers", "2", "--address", head.ray_address)
    command = train_command(data, *both, "train.num_epochs=30")
    process = start(command)
    wait_for_epoch(run, 3, process)
    process.send_signal(signal.SIGINT)
    wait_for_end(process, 130, output=output)
    assert num_epochs(run) < 30
    wait_for_end(start(command), 0, output=output)
    assert "resumes after epoch" in output.read_text()
    assert num_epochs(run) == 30
    (copy,) = (tmp_path / "cache" / "datasets").glob("*/clips.arrow")
    assert copy.read_bytes() == (tiny_folder / "clips.arrow").read_bytes()

    sgn = [sys.executable, "-m", "sgnray.cli"]
    scoring = start([*sgn, "eval", str(run), *both, "--json"], stdout=subprocess.PIPE)
    scored = json.loads(scoring.communicate(timeout=300)[0])
    assert scored["top1"] == json.loads((run / "report.json").read_text())["top1"]

    space = disk / "space.yaml"
    space.write_text("optim.learning_rate: {choice: [1e-2, 2e-2]}\n")
    split = ("--workers-per-trial", "2", "--epochs", "2", "--space", str(space))
    wait_for_end(start(tune_command(data, *both[2:], *split)), 0, output=output)
    (table,) = (disk / "runs").glob("*/trials.csv")
    assert table.read_text().count(",finished,") == 2


@pytest.mark.slow
@pytest.mark.parametrize("two_hosts", [0], indirect=True, ids=["no CPU on the head"])
def test_trials_resume_from_the_states_that_the_driver_has(two_hosts, tiny_folder, tmp_path):
    """After Ctrl-C and after a killed worker, on a host that does not see the search's folder."""
    (head, other), disk = two_hosts, tmp_path / "disk"
    search, output = disk / "runs" / "search", disk / "out.txt"
    space = disk / "space.yaml"
    space.write_text("optim.learning_rate: {choice: [1e-2, 2e-2]}\n")
    options = ("--space", str(space), "--name", "search", "--epochs", "40")
    command = tune_command(tiny_folder, "--address", head.ray_address, *options)
    record = Record(search / "record.jsonl")

    def start():
        with output.open("ab") as out:
            words = [*command, "train.precision=float32"]
            return head.start(words, cwd=disk, stdout=out, stderr=out)

    def wait_for_epochs(number, count, process):
        def has_them():
            rows = TrialTable(record.read()).rows
            return any(row.number == number and row.num_epochs >= count for row in rows)

        wait_until(has_them, process, output=output)

    process = start()
    wait_for_epochs(1, 5, process)
    process.send_signal(signal.SIGINT)
    wait_for_end(process, 130, output=output)
    assert TrialTable(record.read()).row(1).num_epochs < 40
    assert [path.name for path in (search / "states").iterdir()] == ["0001.zip"]

    process = start()
    wait_for_epochs(2, 5, process)
    for worker in map(psutil.Process, other.pids()):
        if "ImplicitFunc" in " ".join(worker.cmdline()):
            worker.kill()
    wait_for_end(process, 0, output=output)
    assert "trial 2 lost its worker and is restarted" in (search / "log.txt").read_text()

    trained = {}
    for event in record.read():
        if isinstance(event, Reported):
            times = trained.setdefault((event.number, event.report.epoch), [])
            times.append(event.report.duration_s)
    assert {number for (number, epoch), times in trained.items() if len(times) > 1} == {1, 2}
    assert all(len(set(times)) == 1 for times in trained.values())  # else it was trained twice
    assert not list((search / "states").iterdir())
    base, dataset = load_recipe(str(search / "base.yaml")), open_dataset(tiny_folder)
    for row in TrialTable(record.read()).rows:
        recipe = shorten(base.replacing(row.values), 40)
        straight = [report.score for report in Folds(recipe, dataset).train_remaining()]
        assert list(row.scores) == straight
