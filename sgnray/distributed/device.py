"""Choose and describe the device, and tune memory allocation."""

from __future__ import annotations

import ctypes
import sys

import torch

from sgnray.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_BLOCK_BYTES, _MOST_KEPT_BYTES = 2**30, 2**31 - 1


def choose_device(device: str) -> torch.device:
    """Return the device of this process; `auto` is a GPU if there is one."""
    check_device_name(device)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "this machine has no GPU that torch can use",
            where="--device cuda",
            now="use --device cpu, or --address of a cluster with GPUs",
        )
    return torch.device(device)


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
