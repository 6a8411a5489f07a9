"""Scores over every test clip exactly once."""

from sgnray.evaluate.place import place_of, write_evaluation
from sgnray.evaluate.report import ClassScore, Confusion, Report, Subject
from sgnray.evaluate.run import evaluate_run

__all__ = [
    "ClassScore",
    "Confusion",
    "Report",
    "Subject",
    "evaluate_run",
    "place_of",
    "write_evaluation",
]
