"""What a training leaves behind: checkpoints, model cards, run folders, and the model to use."""
