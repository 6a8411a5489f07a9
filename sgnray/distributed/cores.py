"""The cores that this process may use."""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from pathlib import Path, PurePath

# Linux: the control groups of this process, and the files of all of them.
_OWN_CGROUPS, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def num_cores() -> int:
    """Count the cores that this process may use; a container may have a share of them."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), *_cpu_quotas())
    return os.cpu_count() or 1


def _cpu_quotas() -> list[int]:
    """Return the CPUs that each control group above this process allows, rounded up."""
    quotas = [sys.maxsize]
    with suppress(OSError):
        for line in _OWN_CGROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers:  # version 1
                root, files = _CGROUPS / "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
            else:
                root, files = _CGROUPS, ["cpu.max"]
            if controllers and "cpu" not in controllers.split(","):
                continue
            below = PurePath(path.lstrip("/"))
            for folder in (below, *below.parents):
                with suppress(OSError, ValueError):  # it is not seen from here, or "max"
                    words = " ".join((root / folder / name).read_text() for name in files)
                    quota, period = map(int, words.split())
                    if quota > 0:
                        quotas.append(math.ceil(quota / period))
    return quotas
