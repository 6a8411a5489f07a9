"""A trial of several workers: Ray Train inside Ray Tune."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, replace
from functools import partial

import ray.train
from ray import tune
from ray.train import TrainingFailedError
from ray.train.torch import get_device
from ray.tune.integration.ray_train import TuneReportCallback
from ray.util.placement_group import get_current_placement_group

from sgnray.distributed.cluster import set_environment
from sgnray.distributed.launcher import RAY_TRAIN_VARIABLES, make_trainer
from sgnray.distributed.process_group import process_group
from sgnray.distributed.queue import MessageQueue
from sgnray.distributed.world import World
from sgnray.errors import SgnError
from sgnray.tune.trial.folds import TrialJob
from sgnray.tune.trial.messages import TrialConfig


@set_environment(RAY_TRAIN_VARIABLES)
def train_group(trial: TrialConfig, job: TrialJob) -> None:
    """Train a trial with several workers under DDP; raises the error of a worker."""
    resources = job.resources
    errors = MessageQueue()
    # Ray Train requires a folder shared by all workers; nothing important is written there.
    with tempfile.TemporaryDirectory(prefix="sgn-tune-", ignore_cleanup_errors=True) as scratch:
        trainer = make_trainer(
            partial(_train_worker, trial, job, errors),
            # Unique: two trials must not continue each other's run.
            name=f"ray-{tune.get_context().get_trial_id()}",
            folder=str(job.states_dir if job.states_dir.is_dir() else scratch),
            num_workers=resources.num_workers,
            num_cpus=resources.num_threads,
            num_gpus=(resources.num_gpus or 0) / resources.num_workers,
            request=resources.request,
            callbacks=[TuneReportCallback()],
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise next(iter(errors.take()), error) from None


def _train_worker(trial: TrialConfig, job: TrialJob, errors: MessageQueue) -> None:
    group = get_current_placement_group().id.hex()
    with process_group(get_device()):
        try:
            for report in job.train(trial, World.current()):
                ray.train.report(asdict(replace(report, placement_group=group)))
        except SgnError as error:
            errors.send(error)
            raise
