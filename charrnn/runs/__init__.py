"""What is kept of a training: checkpoint, history, picture."""
