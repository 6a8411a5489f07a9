"""How Ray runs a search: what can be tested without a cluster."""

import contextlib
import signal

import pytest

from sgnray.tune.ray.launch import _interruptible


def test_a_search_is_interrupted_only_if_the_handler_of_the_caller_raises():
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        with _interruptible() as repeat:
            signal.raise_signal(signal.SIGINT)
            repeat()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with _interruptible() as repeat:
            with contextlib.suppress(KeyboardInterrupt):  # as Ray may do
                signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                repeat()
    finally:
        signal.signal(signal.SIGINT, before)
