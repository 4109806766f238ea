"""The starter: the model that comes with charrnn, trained on many books. docs/starter.md is its card."""

from __future__ import annotations

from pathlib import Path

import charrnn

NAME = "starter"
"""Names it wherever a checkpoint is named."""
NOTHING = "none"
"""In place of a checkpoint to start from."""
PATH = Path(charrnn.__file__).with_name("starter.safetensors")


def is_installed() -> bool:
    """Whether the file is there; a distributor may leave it out."""
    return PATH.exists()
