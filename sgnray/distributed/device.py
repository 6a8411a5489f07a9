"""Choose and describe the device, and tune memory allocation."""

from __future__ import annotations

import ctypes
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sgnray.errors import ClusterError, SgnError, UsageError, first_line

log = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda")
_NVIDIA_DEVICE = Path("/dev/nvidia0")
_gpu_faults: list[str] = []  # torch says it once per process

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_BLOCK_BYTES, _MOST_KEPT_BYTES = 2**30, 2**31 - 1


def choose_device(device: str) -> torch.device:
    """Return the device of this process; `auto` is a GPU if there is one."""
    check_device_name(device)
    if device != "cpu" and _has_gpu():
        _require_float32_products()
        return torch.device("cuda")
    if device == "cuda":
        raise UsageError(
            ": ".join(["this machine has no GPU that torch can use", *_gpu_faults]),
            where="--device cuda",
            now="use --device cpu, or --address of a cluster with GPUs",
        )
    return torch.device("cpu")


def _has_gpu() -> bool:
    """Return whether torch can use a GPU of this machine; warn if there is one that it cannot."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        is_found = torch.cuda.is_available()
    faults = [str(warning.message).splitlines()[0] for warning in caught]
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    if torch.version.cuda is None and _NVIDIA_DEVICE.exists() and not is_hidden:
        faults = ["this torch is built for CPUs only"]
    if not is_found and faults and not _gpu_faults:
        _gpu_faults.extend(faults)
        log.warning("torch cannot use the GPU of this machine: %s", "; ".join(faults))
    return is_found


def prepare_device(device_type: str) -> None:
    """Prepare a process of Ray for the device that it computes on.

    On CPUs, GPUs are hidden: Ray leaves it those of the machine, and torch's optimizers would take
    memory of the first. ClusterError if Ray gave it a GPU that torch cannot use.
    """
    if device_type == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return
    if not _has_gpu():
        raise ClusterError(
            ": ".join(["Ray gave this worker a GPU that its torch cannot use", *_gpu_faults]),
            where=socket.gethostname(),
            now="install a torch for the GPU's driver on all machines, or use CPUs",
        )
    _require_float32_products()


def _require_float32_products() -> None:
    """Compute float32 products on a GPU in float32, whatever the environment says.

    NVIDIA's containers choose TF32, which has 10 bits of mantissa, by an environment variable.
    """
    torch.set_float32_matmul_precision("highest")


@contextmanager
def explained_gpu_memory() -> Iterator[None]:
    """Raise SgnError instead of torch's error if a GPU has no memory left."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SgnError(
            "the GPU has no memory left",
            where=first_line(error),
            now="end other programs on it, or use --device cpu; training needs less with a "
            "smaller optim.batch_size or data.pose_device=host",
        ) from error


def check_device_name(device: str) -> None:
    """Raise UsageError for a device that is not one of DEVICES."""
    if device not in DEVICES:
        raise UsageError(
            f"unknown device '{device}'", where="--device", now=f"one of {', '.join(DEVICES)}"
        )


def describe_device(device: torch.device) -> str:
    """Name the hardware behind a device, for the records."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})"


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed CPU tensors and reuse it for the next ones.

    Every step allocates and frees the same hundreds of MB. If glibc returns them to the system in
    between, the page faults cost a sixth of a step in float32 and a quarter in bf16. The setting
    lasts until the process ends: glibc does not report the previous one.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT_BYTES)
