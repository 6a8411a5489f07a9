"""Limits of a fuzz test: a few hundred files in the suite, or as many as the environment sets.

SGNRAY_FUZZ=200000 sets the number of broken files of each test, SGNRAY_FUZZ_SEED varies them.
"""

import os
import resource
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.configuration import set_hypothesis_home_dir

MIB = 1 << 20


def fuzz(*, num_files, batch):
    """Decorate a test that takes `batch` files at a time: the same files in each plain run."""
    asked = int(os.environ.get("SGNRAY_FUZZ", "0"))
    set_hypothesis_home_dir(os.devnull)  # it would leave a cache in the repository
    configure = settings(
        max_examples=-(-(asked or num_files) // batch),
        derandomize=not asked,
        database=None,
        # A few integers make a file: there is little to shrink, and it takes minutes.
        phases=[Phase.generate],
        report_multiple_bugs=False,
        # Of one batch: enough for a slow machine, and a hang is found.
        deadline=timedelta(seconds=20),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    if not asked:
        return configure
    return lambda test: seed(int(os.environ.get("SGNRAY_FUZZ_SEED", "0")))(configure(test))


@contextmanager
def memory_bound(num_bytes):
    """Let the process grow by no more than this: beyond it, MemoryError is raised."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
