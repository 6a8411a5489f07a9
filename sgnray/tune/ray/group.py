"""A trial of several workers: Ray Train inside Ray Tune."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, replace
from functools import partial

import ray.train
from ray import tune
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer, get_device
from ray.tune.integration.ray_train import TuneReportCallback
from ray.util.placement_group import get_current_placement_group

from sgnray.distributed.launcher import own_process_group
from sgnray.distributed.process_group import process_group
from sgnray.distributed.queue import MessageQueue
from sgnray.distributed.world import World
from sgnray.errors import SgnError
from sgnray.tune.trial.folds import TrialJob
from sgnray.tune.trial.messages import TrialConfig


def train_group(trial: TrialConfig, job: TrialJob) -> None:
    """Train a trial with several workers under DDP; raises what a worker raised."""
    resources = job.resources
    errors = MessageQueue()
    gpus = {"GPU": resources.num_gpus / resources.num_workers} if resources.num_gpus else {}
    # Ray Train requires a folder that all workers see; nothing of value is written there.
    with tempfile.TemporaryDirectory(prefix="sgn-tune-", ignore_cleanup_errors=True) as scratch:
        trainer = TorchTrainer(
            partial(_train_worker, trial, job, errors),
            torch_config=own_process_group(),
            scaling_config=ScalingConfig(
                num_workers=resources.num_workers,
                use_gpu=bool(gpus),
                resources_per_worker={"CPU": resources.num_threads, **gpus},
            ),
            run_config=RunConfig(
                # Unique: two trials must not continue each other's run.
                name=f"ray-{tune.get_context().get_trial_id()}",
                storage_path=str(job.states_dir if job.states_dir.is_dir() else scratch),
                callbacks=[TuneReportCallback()],
                failure_config=FailureConfig(max_failures=0),
                logging_config=LoggingConfig(log_level="ERROR"),
            ),
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
