"""What makes checkpoints that charrnn did not: a small good one, its parts, and a checksum that is right."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import numpy as np

from charrnn.network.config import weight_shapes
from charrnn.runs.checkpoint import to_bytes
from charrnn.runs.records import Checkpoint, CorpusIdentity, Progress, Settings
from charrnn.text.vocabulary import Vocabulary

_CHECKSUM = re.compile(rb'(\\"checksum\\": \\")[0-9a-f]{64}')


def small_checkpoint(characters: str = '\na"\\\u00e9\U0001f600') -> Checkpoint:
    """A checkpoint to sample from, with random weights: some 600 bytes of them."""
    settings = Settings(
        vocabulary="text", encoding="utf-8", errors="strict", embedding=2, units=4, layers=1, cell="lstm", dropout=0.1,
        batch_size=3, seq_length=8, learning_rate=0.005, epochs=2, minutes=None, seed=7, precision="auto",
        init_from=None, source=None, split_at=None,
    )  # fmt: skip
    vocabulary = Vocabulary("text", characters).restricted(characters[:-1], characters[:-2])
    random = np.random.default_rng(0)
    weights = {
        name: random.normal(0, 0.5, shape).astype(np.float32)
        for name, shape in weight_shapes(settings.network(vocabulary)).items()
    }
    progress = Progress(100, 10, "float32", 2, 40, 30, 1.25, 4.5, 7, 124, 1.25, 2, "0" * 16)
    return Checkpoint(settings, vocabulary, CorpusIdentity("c0ffee00" * 8, 1234, 1110), progress, weights, {})


GOOD = to_bytes(small_checkpoint())
HEAD = 8 + int.from_bytes(GOOD[:8], "little")  # bytes before the tensors
BODY = GOOD[HEAD:]
HEADER: dict[str, Any] = json.loads(GOOD[8:HEAD])
DOCUMENT: dict[str, Any] = json.loads(HEADER["__metadata__"]["charrnn"])


def sealed(data: bytes) -> bytes:
    """A file with the checksum that is right for it, where it has a place for one."""
    zeroed = _CHECKSUM.sub(rb"\g<1>" + b"0" * 64, data, count=1)
    digits = hashlib.sha256(zeroed).hexdigest().encode()
    return _CHECKSUM.sub(rb"\g<1>" + digits, zeroed, count=1)


def with_header(header: bytes, body: bytes = BODY) -> bytes:
    """A file of a header and tensors, sealed."""
    return sealed(len(header).to_bytes(8, "little") + header + body)


def forged(document: object = DOCUMENT, body: bytes = BODY, **tensors: object) -> bytes:
    """A file of a configuration, and of what its header says of tensors (None: nothing), sealed."""
    header = {
        "__metadata__": {"charrnn": json.dumps(document, sort_keys=True)},
        **{name: entry for name, entry in HEADER.items() if name != "__metadata__"},
        **tensors,
    }
    kept = {name: entry for name, entry in header.items() if entry is not None}
    return with_header(json.dumps(kept, separators=(",", ":")).encode(), body)


def of_metadata(metadata: object) -> bytes:
    """A file with other metadata in its header, sealed."""
    return with_header(json.dumps({**HEADER, "__metadata__": metadata}, separators=(",", ":")).encode())
