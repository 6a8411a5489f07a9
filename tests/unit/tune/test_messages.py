"""What trials report to the driver, as Ray carries it."""

from dataclasses import asdict

import pytest

from sgnray.errors import RunError
from sgnray.tune.trials import EpochReport, FailureReport, read_result

RAYS_OWN = {"training_iteration": 1, "done": False, "config": {"number": 1}}


@pytest.mark.parametrize(
    "report",
    [
        EpochReport(2, 0.5, 0.1, 3.0, 4, 5, "here", 1.5, 2.5, "ab"),
        EpochReport(1, 0.25),
        FailureReport("ValueError: no", "Traceback"),
    ],
)
def test_a_report_survives_ray(report):
    result = asdict(report)
    assert {"epoch", "score"} <= result.keys()  # the scheduler reads them
    assert read_result(result | RAYS_OWN) == report


def test_a_failure_has_its_reason_in_one_line_and_its_traceback():
    try:
        raise ValueError("no\n  way " + 400 * "x")
    except ValueError as error:
        failure = FailureReport.of(error)
    assert failure.reason.startswith("ValueError: no way xx")
    assert len(failure.reason) == 300
    assert "raise ValueError" in failure.traceback
    error = RunError("it is in use", where="here", now="wait")
    assert FailureReport.of(error).reason == "it is in use (here)"
