"""What a call of `charrnn train` comes to, decided before TensorFlow is imported."""
