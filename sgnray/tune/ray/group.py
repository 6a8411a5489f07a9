"""A trial of several workers: Ray Train inside Ray Tune."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial

import ray.train
from ray import tune
from ray.exceptions import RayError
from ray.train import TrainingFailedError
from ray.tune.integration.ray_train import TuneReportCallback
from ray.util.placement_group import get_current_placement_group
from torch.distributed import DistError

from sgnray.distributed.cluster import set_environment
from sgnray.distributed.driver_actors import MessageQueue
from sgnray.distributed.train_workers import (
    FOREVER_S,
    RAY_TRAIN_VARIABLES,
    START_TIMEOUT,
    process_group,
    run_trainer,
)
from sgnray.distributed.world import World
from sgnray.tune.folds import TrialJob
from sgnray.tune.trials import FailureReport, Started


@set_environment(RAY_TRAIN_VARIABLES)
@set_environment({START_TIMEOUT: str(FOREVER_S)}, replace=True)
def train_group(trial: Started, job: TrialJob) -> FailureReport | None:
    """Train a trial with several workers under DDP; return what failed.

    TrainingFailedError if a worker was lost.
    """
    resources, context = job.resources, tune.get_context()
    failures = MessageQueue()
    try:
        run_trainer(
            partial(_train_worker, trial, job, failures),
            # With the id: another command's trial must not continue this one's run.
            name=f"{context.get_trial_name()}-{context.get_trial_id()}",
            num_workers=resources.num_workers,
            request=resources.worker_request,
            callbacks=[TuneReportCallback()],
        )
    except TrainingFailedError:
        reported: list[FailureReport] = failures.take()
        if not reported:
            raise
        return reported[0]
    except Exception as error:
        return FailureReport.of(error)
    return None


def _train_worker(trial: Started, job: TrialJob, failures: MessageQueue) -> None:
    group = get_current_placement_group().id.hex()
    try:
        with process_group(job.resources.device):
            for report in job.train(trial, World.current()):
                ray.train.report(asdict(replace(report, placement_group=group)))
    except Exception as error:
        if not _may_be_a_loss(error):
            # Wait until it has arrived: once this rank leaves, Ray ends all the others.
            ray.get(failures.send(FailureReport.of(error)))
        raise


def _may_be_a_loss(error: Exception) -> bool:
    """Return whether this may be how torch or Ray reports that another rank is gone."""
    return type(error) is RuntimeError or isinstance(error, (DistError, RayError))
