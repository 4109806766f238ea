"""From a network to text on stdout."""
