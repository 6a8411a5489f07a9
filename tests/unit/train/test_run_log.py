"""The log of a run: a failure with its traceback, an interruption in one line."""

from importlib import metadata

import pytest

from sgnray.train.run import _version, run_log


@pytest.mark.parametrize(
    ("error", "line", "has_traceback"),
    [(ValueError("x"), "the run failed", True), (KeyboardInterrupt(), "interrupted", False)],
)
def test_how_a_run_ended_is_in_its_log(tmp_path, error, line, has_traceback):
    path = tmp_path / "log.txt"
    with pytest.raises(type(error)), run_log(path):
        raise error
    text = path.read_text()
    assert line in text
    assert ("Traceback" in text) == has_traceback


def test_a_package_that_is_not_installed_has_no_version():
    assert _version("torch") == metadata.version("torch")
    assert _version("no-such-package") is None
