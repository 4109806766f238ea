"""A web page in which a model runs."""
