"""The resources of a cluster, the number of workers of a run, and the request of each worker."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from sgnray.errors import UsageError, count_of

log = logging.getLogger(__name__)

_WORKERS = re.compile(r"([0-9]{1,6})(?::([0-9]{1,6}))?")
_ACCELERATOR = "accelerator_type:"
_ON_CPUS = {"worker": "use --device cpu", "trial": "use --gpus-per-trial 0"}
# As Ray accepts them; a value may also be negated or a choice: !spot, in(A100,H100).
_LABEL_WORD = r"[A-Za-z0-9](?:[\w.-]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"(?:[A-Za-z0-9.-]+/)?{_LABEL_WORD}", re.ASCII)
_LABEL_WORDS = rf"{_LABEL_WORD}(?:, ?{_LABEL_WORD})*"
_LABEL_VALUE = re.compile(rf"!?(?:{_LABEL_WORD}|in\({_LABEL_WORDS}\))", re.ASCII)


@dataclass(frozen=True)
class Resources:
    """What the cluster has now; `is_local` is True if this process started it and will end it.

    `node_cpus` and `node_gpus` have those of each node; `free_cpus` and `free_gpus` are not in use.
    """

    num_cpus: int
    num_gpus: int
    is_local: bool
    accelerators: tuple[str, ...] = ()
    node_cpus: tuple[int, ...] = ()
    free_cpus: int = 0
    free_gpus: float = 0
    node_gpus: tuple[float, ...] = ()

    @classmethod
    def now(cls, *, is_local: bool) -> Resources:
        """Query the connected cluster."""
        import ray

        total, free = ray.cluster_resources(), ray.available_resources()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return cls(
            num_cpus=int(total.get("CPU", 0)),
            num_gpus=int(total.get("GPU", 0)),
            is_local=is_local,
            accelerators=tuple(
                sorted(name.partition(":")[2] for name in total if name.startswith(_ACCELERATOR))
            ),
            node_cpus=tuple(int(node.get("CPU", 0)) for node in nodes),
            free_cpus=int(free.get("CPU", 0)),
            free_gpus=free.get("GPU", 0),
            node_gpus=tuple(node.get("GPU", 0) for node in nodes),
        )

    def cpus_per_worker(self, num_workers: int) -> int:
        """Divide the CPUs among workers: all of a local cluster, the free ones of another.

        At least one, and no more than the nodes have room for: a worker cannot span two nodes.
        """
        if self.is_local:
            return max(1, self.num_cpus // num_workers)
        share = self.free_cpus // num_workers
        while share > 1 and sum(cpus // share for cpus in self.node_cpus) < num_workers:
            share -= 1
        return max(1, share)

    def __str__(self) -> str:
        return f"{count_of(self.num_cpus, 'CPU')} ({self.free_cpus} free) and " + count_of(
            self.num_gpus, "GPU"
        )


@dataclass(frozen=True)
class Workers:
    """From `fewest` to `most` workers; both are 0 for this process, without Ray."""

    fewest: int
    most: int

    @classmethod
    def of(cls, wanted: int | tuple[int, int]) -> Workers:
        """Convert a number, or a range (fewest, most); UsageError if it is invalid."""
        fewest, most = wanted if isinstance(wanted, tuple) else (wanted, wanted)
        if fewest < 0 or most < fewest:
            raise _refused(f"{fewest}:{most}" if isinstance(wanted, tuple) else str(wanted))
        if fewest == 0 and most > 0:
            raise UsageError(
                "a run in this process cannot grow to Ray workers",
                where=f"--workers 0:{most}",
                now=f"ask for --workers 1:{most}",
            )
        return cls(fewest, most)

    @property
    def is_elastic(self) -> bool:
        """Whether the number may change during the run."""
        return self.fewest < self.most


def parse_workers(text: str) -> int | tuple[int, int]:
    """Read N or MIN:MAX; UsageError for anything else."""
    found = _WORKERS.fullmatch(text)
    if found is None:
        raise _refused(text)
    wanted = int(found[1]) if found[2] is None else (int(found[1]), int(found[2]))
    Workers.of(wanted)
    return wanted


def _refused(text: str) -> UsageError:
    return UsageError(
        f"invalid number of workers: '{text}'",
        where="--workers",
        now="give a number like --workers 8, or a range like --workers 1:8 that grows and shrinks "
        "with the cluster",
    )


@dataclass(frozen=True)
class WorkerRequest:
    """What each worker requests from Ray, and how long to wait; None means the default.

    `labels` are those that a node must have, `accelerator_type` is Ray's name of a kind of GPU.
    """

    num_cpus: int | None = None
    num_gpus: float | None = None
    accelerator_type: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    wait_s: float | None = None

    def __post_init__(self) -> None:
        check_gpu_share(self.num_gpus or 0, where="--gpus-per-worker")

    def bundle(self) -> dict[str, float]:
        """Return what a placement group reserves for one worker."""
        bundle = {"CPU": float(self.num_cpus or 1)}
        if self.num_gpus:
            bundle["GPU"] = self.num_gpus
        if self.accelerator_type:  # as Ray's own accelerator_type= requests it
            bundle[f"{_ACCELERATOR}{self.accelerator_type}"] = 0.001
        return bundle

    def describe(self, num_workers: int, *, what: str = "worker") -> str:
        """Name it for a message: "4 workers with 1 CPU and 1 GPU (A100) each"."""
        gpu = f" and {count_of(self.num_gpus, 'GPU')}" if self.num_gpus else ""
        kind = f" ({self.accelerator_type})" if self.accelerator_type else ""
        labels = "".join(f", {key}={value}" for key, value in self.labels.items())
        each = " each" if num_workers > 1 else ""
        cpus = count_of(self.num_cpus or 1, "CPU")
        return f"{count_of(num_workers, what)} with {cpus}{gpu}{kind}{labels}{each}"

    def describe_lack(self, resources: Resources) -> str:
        """Say for a message that no node is large enough for one worker; empty if one is."""
        cpus, gpus = self.num_cpus or 1, self.num_gpus or 0
        nodes = zip(resources.node_cpus, resources.node_gpus, strict=True)
        if any(cpus <= node_cpus and gpus <= node_gpus for node_cpus, node_gpus in nodes):
            return ""
        needed = count_of(cpus, "CPU") + (f" and {count_of(gpus, 'GPU')}" if gpus else "")
        return f"; no node now has {needed}: this ends only if the autoscaler can add one"


def check_gpu_share(num_gpus: float, *, where: str) -> None:
    """Raise UsageError for the GPUs of a worker if Ray cannot give it so many."""
    if num_gpus > 1 and not float(num_gpus).is_integer():
        raise UsageError(
            f"a worker cannot use {num_gpus:g} GPUs",
            where=where,
            now="ask for a share of one GPU, such as 0.5, or for whole GPUs",
        )


def check_training_gpus(num_gpus: float, num_workers: int, *, where: str, now: str) -> None:
    """Raise UsageError unless each worker can train on its GPU, or alone on its share of one."""
    check_gpu_share(num_gpus, where=where)
    if not 0 < num_gpus <= 1:
        raise UsageError("a worker trains on one GPU, or on CPUs", where=where, now=now)
    if num_gpus < 1 < num_workers:
        what = f"{num_workers} workers need a GPU each, and nccl cannot share a GPU"
        raise UsageError(what, where=where, now=now)


def parse_labels(texts: Sequence[str]) -> dict[str, str]:
    """Parse labels written as KEY=VALUE; UsageError for invalid ones."""
    labels, invalid = {}, []
    for text in texts:
        key, _, value = text.partition("=")
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            invalid.append(f"'{text}'")
        labels[key] = value
    if invalid:
        what = "is not a label" if len(invalid) == 1 else "are not labels"
        raise UsageError(
            f"{', '.join(invalid)} {what}",
            where="--label",
            now="give a key and a value, like --label ray.io/market-type=spot",
        )
    return labels


def check_without_ray(
    address: str | None, request: WorkerRequest | None, *, max_failures: int | None = None
) -> None:
    """Raise UsageError for options that only apply to Ray workers."""
    request = request or WorkerRequest()
    given = {
        "--address": address,
        "--max-failures": max_failures,
        "--cpus-per-worker": request.num_cpus,
        "--gpus-per-worker": request.num_gpus,
        "--accelerator-type": request.accelerator_type,
        "--label": " --label ".join(map("=".join, request.labels.items())) or None,
        "--wait": None if request.wait_s is None else f"{request.wait_s:g}s",
    }
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise UsageError(
            "without workers, Ray is not used",
            where=" ".join(f"{name} {given[name]}" for name in names),
            now=f"add --workers 1 or more, or remove {', '.join(names)}",
        )


def check_local(
    num_workers: int, resources: Resources, request: WorkerRequest, *, what: str = "worker"
) -> None:
    """Raise UsageError for a request that a local Ray, which never grows, cannot meet."""
    if not resources.is_local:
        return
    has_kind = request.accelerator_type in (None, *resources.accelerators)
    has_cpus = (request.num_cpus or 1) * num_workers <= resources.num_cpus
    has_gpus = (request.num_gpus or 0) * num_workers <= resources.num_gpus
    if not (has_cpus and has_gpus and has_kind) or request.labels:
        on_cpus = "" if has_gpus else f", {_ON_CPUS[what]}"
        raise UsageError(
            f"this machine has no room for {request.describe(num_workers, what=what)}",
            where=f"Ray on this machine alone, with {resources}",
            now=f"ask for less{on_cpus}, or name a cluster with --address",
        )


def use_gpu(
    device: str, resources: Resources, request: WorkerRequest, *, option: str = "--device cuda"
) -> bool:
    """Decide between GPUs and CPUs; `auto` takes GPUs if the cluster has any now.

    `cuda` on an existing cluster may wait for GPUs; UsageError on a new one without. Ray also
    counts GPUs that torch cannot use, so for a Ray that was started here torch is asked as well.
    """
    if device == "cpu":
        if request.num_gpus:
            raise UsageError(
                "GPUs are requested for workers that use CPUs",
                where=f"--device cpu --gpus-per-worker {request.num_gpus:g}",
                now="leave out one of them",
            )
        return False
    if resources.is_local and resources.num_gpus:
        from sgnray.distributed.device import choose_device  # loads torch

        return choose_device(device).type == "cuda"
    if resources.is_local and (device == "cuda" or request.num_gpus):
        option = "--device cuda" if device == "cuda" else f"--gpus-per-worker {request.num_gpus:g}"
        raise UsageError(
            "this machine has no GPU that Ray can use",
            where=option,
            now=f"leave out {option}, or name a cluster with GPUs with --address",
        )
    if resources.is_local:
        return False
    # If it asks for a kind or a share of GPU, the cluster may be scaled to zero.
    if device == "cuda" or resources.num_gpus or request.accelerator_type or request.num_gpus:
        return True
    log.warning("the cluster has no GPU now: using CPUs; %s waits for GPUs", option)
    return False


def warn_of_few_cpus(
    num_workers: int, resources: Resources, *, option: str = "--cpus-per-worker"
) -> None:
    """Warn if the default share of a worker is one CPU because a cluster has few free CPUs now."""
    if not resources.is_local and resources.free_cpus < 2 * num_workers:
        log.warning(
            "the cluster has %s now: each worker uses 1 thread; %s asks for more",
            count_of(resources.free_cpus, "free CPU"),
            option,
        )


def gpus_per_actor(device: str, resources: Resources, request: WorkerRequest) -> float:
    """Return the GPUs, or the share of one, that each actor requests; 0 means CPUs.

    UsageError for `cuda` without any.
    """
    if request.num_gpus == 0:
        if device == "cuda":
            raise UsageError(
                "GPUs are requested, but none for a worker",
                where="--device cuda --gpus-per-worker 0",
                now="give each worker a GPU or a share of one, such as 0.25, or use --device cpu",
            )
        return 0.0
    if not use_gpu(device, resources, request):
        return 0.0
    return 1.0 if request.num_gpus is None else request.num_gpus
