"""The output of training: checkpoints, model cards, run folders, and trained models."""
