"""Scores over every test clip exactly once."""

from sgnray.evaluate.launch import evaluate_run
from sgnray.evaluate.report import ClassScore, Confusion, Report, Subject

__all__ = ["ClassScore", "Confusion", "Report", "Subject", "evaluate_run"]
