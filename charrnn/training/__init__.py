"""Training with TensorFlow and Keras, which no other package imports."""
