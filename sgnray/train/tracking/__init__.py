"""What shows a run: curves and trackers."""
