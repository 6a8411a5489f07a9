"""Ray's trainer with what its settings cannot say: how many workers, what is retried, Ctrl-C.

Ray 2.60's own parts are replaced where a fault showed that they do not do; see each class.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    NoopDecision,
    ScalingDecision,
)

from sgnray.errors import SgnError

_ABORT_TIMEOUT_S = 5.0
_WAIT_S = 1.0

NodeResources = dict[str, dict[str, float]]


class Trainer(TorchTrainer):  # type: ignore[misc]
    """Ray's torch trainer with our policies."""

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        if self.scaling_config.elasticity_enabled:
            parts["scaling_policy"] = FreeNodes(self.scaling_config)
        parts["failure_policy"] = LostWorkers(self.run_config.failure_config)
        with _interrupts_restored():
            return super()._initialize_and_run_controller(**parts)

    def _register_sigint_handler(self, controller: Any) -> None:
        """End the run at once, also while it waits for nodes: Ray's handler would wait with it."""
        before = signal.getsignal(signal.SIGINT)

        def stop(number: int, frame: FrameType | None) -> None:
            # A second Ctrl-C does not wait for the controller.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                with suppress(RayError):
                    ray.get(controller.abort.remote(), timeout=_ABORT_TIMEOUT_S)
            finally:
                ray.kill(controller)
            if callable(before):
                before(number, frame)
            raise KeyboardInterrupt

        signal.signal(signal.SIGINT, stop)


class FreeNodes(ElasticScalingPolicy):  # type: ignore[misc]
    """As many workers as the nodes have room for now.

    Ray's own policy asks a coordinator that looks at the nodes every 20 s, takes what others use
    for free, and keeps for three minutes what a killed run had asked for.
    """

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Wait a moment where there is no room: Ray asks again at once, on a whole core."""
        decision = super().make_decision_for_non_running_worker_group()
        if isinstance(decision, NoopDecision):
            time.sleep(_WAIT_S)
        return decision

    def _get_reserved_resources(self) -> NodeResources:
        return room_on_nodes()


class LostWorkers(DefaultFailurePolicy):  # type: ignore[misc]
    """Lost workers are replaced; an error made for the user would only come again."""

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        """Decide whether to go on."""
        failure = getattr(training_failed_error, "controller_failure", None)
        if isinstance(failure, RayError):
            # A worker was lost while its group was starting; Ray would give up.
            training_failed_error = WorkerGroupError(str(failure), {0: failure})
        return super().make_decision(training_failed_error)

    def _is_retryable_error(self, training_failed_error: TrainingFailedError) -> bool:
        if told_by_worker(training_failed_error) is not None:
            return False
        return bool(super()._is_retryable_error(training_failed_error))


def told_by_worker(error: Exception) -> SgnError | None:
    """Find the error that a worker raised for the user, None where there is none."""
    failures = getattr(error, "worker_failures", {}).values()
    for failure in (*failures, error):
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, SgnError):
                return cause
            cause = getattr(cause, "_base_exc", None) or cause.__cause__
    return None


def room_on_nodes() -> NodeResources:
    """Return, for each node that is alive, what is free and what this driver's workers hold."""
    from ray._private.state import available_resources_per_node

    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    room: NodeResources = {
        node: dict(free) for node, free in available_resources_per_node().items() if node in alive
    }
    for node, bundle in _own_bundles():
        if node in room:
            for resource, amount in bundle.items():
                room[node][resource] = room[node].get(resource, 0.0) + amount
    return room


def _own_bundles() -> Iterator[tuple[str, dict[str, float]]]:
    """List (node, resources) of this driver's placement groups; their ids end with its job's."""
    job = ray.get_runtime_context().get_job_id()
    for key, group in ray.util.placement_group_table().items():
        if key.endswith(job) and group["state"] in ("CREATED", "RESCHEDULING"):
            for index, node in group["bundles_to_node_id"].items():
                yield node, group["bundles"][index]


@contextmanager
def _interrupts_restored() -> Iterator[None]:
    """Give the caller's handler of Ctrl-C back; Ray keeps its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
