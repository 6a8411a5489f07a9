"""The trackers of a search: each trial is a run of its own, grouped under the search's name."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from sgnray import metric_keys as keys
from sgnray.checkpoints.run_folder import RunFolder
from sgnray.metric_keys import Metrics
from sgnray.storage.atomic import output_errors
from sgnray.train.tracking.trackers import Trackers
from sgnray.tune.space.space import Values
from sgnray.tune.state.folder import SearchFolder
from sgnray.tune.state.trials import Ended, Event, Reported, Started
from sgnray.tune.trial.messages import EpochReport


class TrialTrackers:
    """Passes the events of a search on to the trackers that its recipe asks for.

    A trial that resumes first reports its earlier epochs again; its history comes from these.
    """

    def __init__(self, folder: SearchFolder) -> None:
        self._folder = folder
        self._reports: dict[int, list[EpochReport]] = defaultdict(list)
        self._open: dict[int, Trackers] = {}
        self._failed: set[str] = set()
        self._started: set[str] = set()

    def apply(self, event: Event) -> None:
        """Start, follow or finish a trial; SgnError if a tracker does not start for the first."""
        if not self._folder.plan.recipe.train.log:
            return
        match event:
            case Started(number, values) if number not in self._open:
                self._open[number] = self._start(number, values)
            case Reported(number, report) if number in self._open:
                # An epoch that is repeated after a lost worker replaces the first.
                self._reports[number][report.epoch - 1 :] = [report]
                self._open[number].log(_history(self._reports[number]))
            case Ended(number, status) if number in self._open:
                self._open.pop(number).finish(None, is_complete=status != "failed")

    def close(self) -> None:
        """Close the trackers of interrupted trials."""
        while self._open:
            self._open.popitem()[1].finish(None)

    def _start(self, number: int, values: Values) -> Trackers:
        folder = self._folder.trial_dir(number)
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        trackers = Trackers(self._folder.path.name, self._failed, self._started)
        recipe = self._folder.plan.trial_recipe(values)
        trackers.start(recipe, RunFolder(folder), _history(self._reports[number]))
        return trackers


def _history(reports: list[EpochReport]) -> list[Metrics]:
    ends_s = [0.0, *(report.duration_s for report in reports)]
    return [
        {**report.metrics, keys.EPOCH_S: end_s - before_s}
        for report, (before_s, end_s) in zip(reports, pairwise(ends_s), strict=True)
    ]
