"""Waiting for what another thread or process does."""

import time


def wait_for(condition, found):
    """Wait until a condition holds; after five minutes, fail with what `found` returns."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, found()
        time.sleep(0.05)
