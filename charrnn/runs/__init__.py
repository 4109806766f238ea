"""The files that a training run leaves: checkpoint, history, picture."""
