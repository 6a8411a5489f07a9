"""Scores over every test clip exactly once."""

from sgnray.evaluate.report import ClassScore, Confusion, EvaluatedModel, Report
from sgnray.evaluate.run import evaluate_run
from sgnray.evaluate.write import check_folder, place_of, write_evaluation

__all__ = [
    "ClassScore",
    "Confusion",
    "EvaluatedModel",
    "Report",
    "check_folder",
    "evaluate_run",
    "place_of",
    "write_evaluation",
]
