"""One trial in a Ray worker, or spread over several: it trains, reports, and never raises."""

from __future__ import annotations

import socket
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sgnray.config import Recipe
from sgnray.data.shared import SharedDataset
from sgnray.data.store import open_dataset
from sgnray.distributed.world import World
from sgnray.errors import SgnError
from sgnray.metric_keys import VAL_TOP1
from sgnray.tune.plan import shorten
from sgnray.tune.space.space import Values, with_values
from sgnray.tune.trial.folds import EPOCH, Folds

NODE, FAILURE, STORY = "node", "failure", "story"
TRIAL, NUMBER, VALUES = "trial", "number", "values"
NAME_PREFIX = "trial-"
# Where a trial's workers have their CPUs, for the driver to give back.
GROUP = "placement_group"
_MAX_REASON = 300


@dataclass(frozen=True)
class Share:
    """What each trial gets of the cluster, shared by its workers."""

    num_workers: int
    num_cpus: int
    num_gpus: float

    @property
    def num_threads(self) -> int:
        """Threads of each worker."""
        return max(1, self.num_cpus // self.num_workers)


@dataclass(frozen=True)
class TrialJob:
    """All trials of a search as their workers are told of them; plain data that travels.

    `states_dir` is where unfinished trials keep what they need to go on; None keeps nothing.
    `swaps_states` is for PBT, where a trial may go on from a copy of another.
    """

    recipe: Recipe
    num_epochs: int
    num_seeds: int
    dataset: SharedDataset
    share: Share
    states_dir: Path | None
    swaps_states: bool = False

    def recipe_of(self, values: Values) -> Recipe:
        """Return the recipe that a trial trains."""
        return shorten(with_values(self.recipe, values), self.num_epochs)

    def state_dir(self, number: int) -> Path | None:
        """Return where a trial keeps its state, None where this machine does not see it."""
        if self.states_dir is None or not self.states_dir.is_dir():
            return None
        return self.states_dir / f"{number:04d}"


def run_trial(config: dict[str, Any], *, job: TrialJob) -> None:
    """Train the trial that `config` names, in a Ray worker, and report every epoch.

    What it raises is reported too: Ray would start it again, where only a lost worker is worth it.
    """
    from ray import tune

    try:
        if job.share.num_workers > 1:
            from sgnray.tune.trial.group import train_group

            train_group(config[TRIAL], job)
        else:
            train_alone(config[TRIAL], job)
    except Exception as error:
        story = "".join(traceback.format_exception(error))
        tune.report({EPOCH: 0, VAL_TOP1: 0.0, FAILURE: _reason(error), STORY: story})


def train_alone(trial: dict[str, Any], job: TrialJob) -> None:
    """Train in this process."""
    from ray import tune

    torch.set_num_threads(job.share.num_threads)
    state_dir = job.state_dir(own_number())
    folds = _begin(trial, job, World(), state_dir)
    if not job.swaps_states:
        for metrics in train_folds(folds, state_dir):
            tune.report(metrics)
        return
    if state_dir is None:
        raise SgnError(
            "this machine does not see the search's folder, through which PBT hands on weights",
            where=str(job.states_dir),
            now="put --runs where all machines see it",
        )
    passed_on = tune.get_checkpoint()
    if passed_on is not None:
        with passed_on.as_directory() as folder:
            folds.restore(Path(folder))
    for metrics in folds.rest():
        folds.save(state_dir)
        with tempfile.TemporaryDirectory(prefix="sgn-tune-") as copy:
            folds.save(Path(copy))
            tune.report(_with_node(metrics), checkpoint=tune.Checkpoint.from_directory(copy))


def own_number() -> int:
    """Return this trial's number; its configuration may be a copy of another's, under PBT."""
    from ray import tune

    return number_of(tune.get_context().get_trial_name())


def number_of(trial_name: str) -> int:
    """Read a trial's number from the name that Ray was told to give it."""
    return int(trial_name.removeprefix(NAME_PREFIX))


def _reason(error: Exception) -> str:
    """Say in one line why a trial failed."""
    if isinstance(error, SgnError):
        return f"{error.what} ({error.where})"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:_MAX_REASON]


def train_share(trial: dict[str, Any], job: TrialJob) -> Iterator[dict[str, Any]]:
    """Train as one of several workers and yield every epoch. Collective over the workers."""
    torch.set_num_threads(job.share.num_threads)
    state_dir = job.state_dir(trial[NUMBER])
    yield from train_folds(_begin(trial, job, World.current(), state_dir), state_dir)


def train_folds(folds: Folds, state_dir: Path | None) -> Iterator[dict[str, Any]]:
    """Yield the metrics of every epoch, also of those that were done before an interruption.

    So whoever listens, ASHA above all, hears the same whether it was interrupted or not.
    """
    for epoch in range(1, folds.epoch + 1):
        yield _with_node(folds.metrics(epoch))
    for metrics in folds.rest():
        if state_dir is not None:
            folds.save(state_dir)
        yield _with_node(metrics)


def _begin(trial: dict[str, Any], job: TrialJob, world: World, state_dir: Path | None) -> Folds:
    folds = Folds(
        job.recipe_of(trial[VALUES]),
        open_dataset(job.dataset.local_dir()),
        num_seeds=job.num_seeds,
        device=torch.device("cuda" if job.share.num_gpus else "cpu"),
        world=world,
    )
    if state_dir is not None:
        folds.restore(state_dir)
    return folds


def _with_node(metrics: dict[str, Any]) -> dict[str, Any]:
    return {**metrics, NODE: socket.gethostname()}
