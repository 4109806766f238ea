"""A trained model in the file formats of other programs."""
