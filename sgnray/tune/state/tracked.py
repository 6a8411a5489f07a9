"""The trackers of a search: each trial is a run of its own, grouped under the search's name."""

from __future__ import annotations

from collections import defaultdict

from sgnray import metric_keys as keys
from sgnray.checkpoints.run_folder import RunFolder
from sgnray.storage.atomic import output_errors
from sgnray.train.tracking.trackers import Metrics, Trackers
from sgnray.tune.plan import shorten
from sgnray.tune.space.space import Values
from sgnray.tune.state.folder import SearchFolder
from sgnray.tune.state.trials import Ended, Event, Reported, Started
from sgnray.tune.trial.messages import EpochReport


class TrialTrackers:
    """Passes the events of a search on to the trackers that its recipe asks for.

    A trial that resumes first reports its earlier epochs: their history comes from there.
    """

    def __init__(self, folder: SearchFolder) -> None:
        self._folder = folder
        self._histories: dict[int, list[Metrics]] = defaultdict(list)
        self._durations_s: dict[int, list[float]] = defaultdict(list)
        self._open: dict[int, Trackers] = {}
        self._failed: set[str] = set()

    def apply(self, event: Event) -> None:
        """Start, follow or finish a trial; SgnError where a tracker does not start."""
        if not self._folder.plan.recipe.train.log:
            return
        match event:
            case Started(number, values) if number not in self._open:
                self._open[number] = self._start(number, values)
            case Reported(number) if number in self._open:
                self._remember(event)
                self._open[number].log(self._histories[number])
            case Ended(number, status) if number in self._open:
                self._open.pop(number).finish(None, is_complete=status != "failed")

    def close(self) -> None:
        """Close what is open: trials that were interrupted."""
        while self._open:
            self._open.popitem()[1].finish(None)

    def _start(self, number: int, values: Values) -> Trackers:
        folder, plan = self._folder.trial_dir(number), self._folder.plan
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        trackers = Trackers(self._folder.path.name, self._failed)
        recipe = shorten(plan.recipe_of(values), plan.num_epochs)
        trackers.start(recipe, RunFolder(folder), self._histories[number])
        return trackers

    def _remember(self, event: Reported) -> None:
        """Keep an epoch; one that is repeated after a lost worker replaces the first."""
        report, done = event.report, event.report.epoch - 1
        history, durations_s = self._histories[event.number], self._durations_s[event.number]
        before_s = durations_s[done - 1] if done else 0.0
        history[done:] = [_metrics(report, report.duration_s - before_s)]
        durations_s[done:] = [report.duration_s]


def _metrics(report: EpochReport, epoch_s: float) -> Metrics:
    known = {
        keys.TRAIN_LOSS: report.train_loss,
        keys.VAL_LOSS: report.val_loss,
        keys.VAL_TOP1: report.score,
        keys.EPOCH_S: epoch_s,
    }
    return {key: value for key, value in known.items() if value is not None}
