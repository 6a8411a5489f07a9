"""Curves and trackers that show a run."""
