"""A trial of several workers: Ray Train inside Ray Tune."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from typing import Any

import ray.train
from ray import PlacementGroupID, tune
from ray.exceptions import RayError
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.tune.integration.ray_train import TuneReportCallback
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    remove_placement_group,
)

from sgnray.distributed.network import NodeNetworkConfig
from sgnray.distributed.ray_trainer import Trainer, told_by_worker
from sgnray.tune.trial.job import GROUP, TrialJob, train_share


def train_group(trial: dict[str, Any], job: TrialJob) -> None:
    """Train a trial with several workers under DDP; raises what a worker raised."""
    share = job.share
    gpus = {"GPU": share.num_gpus / share.num_workers} if share.num_gpus else {}
    # Ray Train insists on a folder that all workers see; nothing that stays is written there.
    with tempfile.TemporaryDirectory(prefix="sgn-tune-", ignore_cleanup_errors=True) as scratch:
        storage = job.states_dir if job.states_dir and job.states_dir.is_dir() else scratch
        trainer = Trainer(
            _train_worker,
            train_loop_config={"trial": trial, "job": job},
            torch_config=NodeNetworkConfig(),
            scaling_config=ScalingConfig(
                num_workers=share.num_workers,
                use_gpu=bool(gpus),
                resources_per_worker={"CPU": share.num_threads, **gpus},
            ),
            run_config=RunConfig(
                # The trial's own: two trials must not take up each other's.
                name=f"ray-{tune.get_context().get_trial_id()}",
                storage_path=str(storage),
                callbacks=[TuneReportCallback()],
                failure_config=FailureConfig(max_failures=0),
                logging_config=LoggingConfig(log_level="ERROR"),
            ),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise told_by_worker(error) or error from None


def release(group: str) -> None:
    """Give back the CPUs of a trial's workers: Ray keeps them where the trial was stopped."""
    with suppress(RayError, ValueError):
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))


def _train_worker(config: dict[str, Any]) -> None:
    group = get_current_placement_group().id.hex()
    for metrics in train_share(config["trial"], config["job"]):
        ray.train.report({**metrics, GROUP: group})
