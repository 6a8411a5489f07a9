"""One trial in a Ray worker: it trains, reports each epoch, and never raises."""

from __future__ import annotations

from typing import cast

from ray import tune

from sgnray.distributed.world import World
from sgnray.tune.trial.job import TrialJob
from sgnray.tune.trial.messages import FailureReport, TrialConfig


def run_trial(config: dict[str, object], *, job: TrialJob) -> None:
    """Train the trial that `config` names and report each epoch.

    An exception is reported too: Ray would restart the trial, which only helps after a lost worker.
    """
    trial = cast(TrialConfig, config)
    try:
        if job.resources.num_workers > 1:
            # Ray Train takes a second to import, which most trials do not need.
            from sgnray.tune.trial.group import train_group

            train_group(trial, job)
        else:
            for report in job.train(trial, World()):
                tune.report(report.to_result())
    except Exception as error:
        tune.report(FailureReport.of(error).to_result())
