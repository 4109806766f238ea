"""Plans a call of `charrnn train` before TensorFlow is imported."""
