"""Checkpoint files: exact to write, atomic, strict to read."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load as safetensors_load
from safetensors.numpy import save as safetensors_save

from charrnn import CharrnnError
from charrnn.files import NotWrittenError, write_atomically
from charrnn.network.cells import CELLS
from charrnn.network.config import weight_shapes
from charrnn.runs.checkpoint import checksum, from_bytes, load, read_head, to_bytes
from charrnn.runs.records import FORMAT_VERSION, Checkpoint, CorpusIdentity, Progress, Settings, training_shapes
from charrnn.text.vocabulary import Vocabulary

SETTINGS = Settings(
    vocabulary="text", encoding="utf-8", errors="strict", embedding=4, units=6, layers=2, cell="lstm", dropout=0.1,
    batch_size=3, seq_length=8, learning_rate=0.005, epochs=2, minutes=None, seed=7, precision="auto",
    init_from="beef" * 16, source=None, split_at=None,
)  # fmt: skip
PROGRESS = Progress(100, 10, "float32", 2, 37, 30, 1.25, 4.5, 7, 124, None, 2, "c0ffee" + "0" * 10)


def make(
    settings: Settings = SETTINGS, characters: str = 'ab"\\\u00e9漢\U0001f600\n', resumable: bool = True
) -> Checkpoint:
    random = np.random.default_rng(0)
    vocabulary = {
        "ascii": Vocabulary.ascii().restricted("abc", "ab"), "bytes": Vocabulary.bytes(),
        "text": Vocabulary("text", characters).restricted(characters, characters[:3]),
    }[settings.vocabulary]  # fmt: skip
    shapes = weight_shapes(settings.network(vocabulary)), training_shapes(settings, vocabulary)
    weights, training = (
        {name: random.normal(size=shape).astype(np.float32) for name, shape in group.items()} for group in shapes
    )
    return Checkpoint(
        settings,
        vocabulary,
        CorpusIdentity("c0ffee00" * 8, 1234, 1110),
        PROGRESS,
        weights,
        training if resumable else {},
    )


GOOD = to_bytes(make())
HALF = to_bytes(dataclasses.replace(make(resumable=False), weights_type="float16"))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("vocabulary", ["ascii", "text", "bytes"])
@pytest.mark.parametrize("resumable", [True, False])
def test_what_was_written_is_read_back(tmp_path: Path, cell: str, vocabulary: str, resumable: bool) -> None:
    before = make(dataclasses.replace(SETTINGS, cell=cell, vocabulary=vocabulary), resumable=resumable)
    write_atomically(tmp_path / "x.safetensors", to_bytes(before))
    after = load(tmp_path / "x.safetensors")
    for field in ("settings", "vocabulary", "corpus", "progress"):
        assert getattr(after, field) == getattr(before, field)
    for field in ("weights", "training"):
        written, read = getattr(before, field), getattr(after, field)
        assert list(read) == list(written)
        assert all((read[name] == written[name]).all() for name in written)


def test_weights_of_half_width_are_read_back_as_the_nearest_float32() -> None:
    whole = make(resumable=False)
    half = dataclasses.replace(whole, weights_type="float16")
    data = to_bytes(half)
    assert len(data) < len(to_bytes(whole)) - 1.9 * sum(weight.size for weight in whole.weights.values())
    found = from_bytes(data)
    for name, weight in whole.weights.items():
        assert found.weights[name].dtype == np.float32
        assert (found.weights[name] == weight.astype(np.float16)).all()
    assert to_bytes(found) == data
    tensors = safetensors_load(data)
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float16)}
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert safetensors_save(tensors, header["__metadata__"]) == data


def test_an_older_format_has_only_the_cells_of_its_time() -> None:
    coupled = make(dataclasses.replace(SETTINGS, cell="coupled"))
    from_bytes(to_bytes(dataclasses.replace(coupled, format=6)))
    with pytest.raises(ValueError, match="a cell that its format does not have"):
        from_bytes(to_bytes(dataclasses.replace(coupled, format=5)))


def test_half_a_width_is_not_for_the_state_of_a_training() -> None:
    with pytest.raises(ValueError, match="its header does not match"):
        from_bytes(to_bytes(dataclasses.replace(make(), weights_type="float16")))


def test_equal_checkpoints_give_equal_bytes() -> None:
    assert to_bytes(make()) == GOOD


def test_the_safetensors_library_reads_it_and_writes_the_same_bytes() -> None:
    tensors = safetensors_load(GOOD)
    expected = make()
    assert tensors.keys() == {*expected.weights, *expected.training}
    assert (tensors["embedding"] == expected.weights["embedding"]).all()
    header = json.loads(GOOD[8 : 8 + int.from_bytes(GOOD[:8], "little")])
    assert safetensors_save(tensors, header["__metadata__"]) == GOOD


@pytest.mark.parametrize("good", [GOOD, HALF])
def test_every_flipped_byte_is_refused(good: bytes) -> None:
    for at in [*range(min(len(good), 3000)), *range(3000, len(good), 97)]:
        damaged = bytearray(good)
        damaged[at] ^= 0x01
        with pytest.raises(ValueError):  # noqa: PT011 - that it is refused is the point; messages are tested below
            from_bytes(bytes(damaged))


@pytest.mark.parametrize("good", [GOOD, HALF])
def test_every_truncation_is_refused(good: bytes) -> None:
    for length in [*range(min(len(good), 3000)), *range(3000, len(good), 97)]:
        with pytest.raises(ValueError):  # noqa: PT011
            from_bytes(good[:length])
    with pytest.raises(ValueError, match="truncated"):
        from_bytes(good[:-1])
    with pytest.raises(ValueError, match="continues after its last tensor"):
        from_bytes(good + b"\0")


def forged(change: dict[str, object] | None = None, **tensors: np.ndarray) -> bytes:
    """A file as a forger would write it, with a checksum that is right."""
    import hashlib

    document = json.loads(json.loads(GOOD[8 : 8 + int.from_bytes(GOOD[:8], "little")])["__metadata__"]["charrnn"])
    for path, value in (change or {}).items():
        place = document
        *parents, key = path.split(".")
        for parent in parents:
            place = place[parent]
        place[key] = value
    document["checksum"] = "0" * 64
    data = safetensors_save({**safetensors_load(GOOD), **tensors}, {"charrnn": json.dumps(document, sort_keys=True)})
    return data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode(), 1)


def rewritten(old: bytes, new: bytes) -> bytes:
    """The good file with a piece of its header put in another way, and a checksum that is right."""
    import hashlib

    size = int.from_bytes(GOOD[:8], "little")
    header = GOOD[8 : 8 + size]
    assert old in header
    header = re.sub(rb"[0-9a-f]{64}", b"0" * 64, header.replace(old, new, 1), count=1)
    data = len(header).to_bytes(8, "little") + header + GOOD[8 + size :]
    return data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode(), 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"shape":[8,4]', b'"shape":[8.0,4]'),
        (b'"shape":[8,4]', b'"shape":[4,8]'),
        (b'"dtype":"F32"', b'"dtype":"I32"'),
        (b'"dtype":"F32"', b'"dtype":"F32","dtype":"F32"'),
        (b'"softmax.bias":', b'"softmax.bias":0,"softmax.bias":'),
        (b'"softmax.bias"', b'"softmax.bia\\u0073"'),
        (b'{"__metadata__":', b'{ "__metadata__":'),
        (b'\\"step\\": 37', b'\\"step\\": 37, \\"step\\": 37'),
        (b'\\"step\\": 37', b'\\"step\\":  37'),
        (b'\\"dropout\\": 0.1', b'\\"dropout\\": 1e-1'),
        (b'\\"dropout\\": 0.1', b'\\"dropout\\": 1e-999'),
        (b'\\"dropout\\": 0.1', b'\\"dropout\\": NaN'),
        (b'\\"best_loss\\": 1.25', b'\\"best_loss\\": 1e999'),
        (b'\\"units\\": 6', b'\\"units\\": ' + b"6" * 5000),
    ],
)
def test_a_configuration_has_one_header_and_any_other_is_refused(old: bytes, new: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        from_bytes(rewritten(old, new))
    assert from_bytes(rewritten(old, old)).progress == PROGRESS


def test_a_forgers_checksum_is_no_obstacle_by_itself() -> None:
    assert from_bytes(forged()).progress == PROGRESS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "format 1; this charrnn reads formats 2, 3, 4"),
        ({"format": 2}, "unknown or missing keys in the configuration"),
        ({"known": 'ab"', "seen": "\u00e9"}, "seen characters are not known"),
        ({"known": "ba"}, "do not fit the vocabulary"),
        ({"known": 'ab"\\\u00e9漢\U0001f600\n'}, "do not fit the vocabulary"),  # which null says
        ({"seen": "az"}, "do not fit the vocabulary"),
        ({"seen": ""}, "no seen characters"),
        ({"seen": 1}, "not a string"),
        ({"settings.units": 10**9}, "units is 1000000000"),
        ({"settings.units": 65537}, "units is 65537"),
        ({"settings.units": 7}, "does not match its configuration"),
        ({"settings.units": -6}, "units is -6"),
        ({"settings.units": 6.0}, r"units is 6\.0"),
        ({"settings.units": True}, "units is True"),
        ({"settings.units": 10**4000}, r"units is 1000\d*\.\.\.\d*$"),
        ({"settings.units": "6" * 10**6}, r"units is '6*\.\.\.6*'$"),
        ({"settings.layers": 3}, "does not match its configuration"),
        ({"settings.layers": 101}, "layers is 101"),
        ({"settings.encoding": "../x"}, "encoding is"),
        ({"settings.errors": "ignore"}, "errors is"),
        ({"settings.seed": 2**32}, "seed is"),
        ({"settings.cell": "transformer"}, "cell is"),
        ({"settings.dropout": 1.0}, "dropout is"),
        ({"settings.init_from": "../x"}, "init_from is"),
        ({"settings.init_from": None, "settings.source": "x"}, "a source without its checksum"),
        ({"settings.source": ""}, "source is"),
        ({"weights": "float64"}, "weights is"),
        ({"weights": ["float32"]}, "weights is"),
        ({"weights": "float16"}, "its header does not match"),
        ({"settings.minutes": 1.0}, "both set"),
        ({"settings.flavour": "odd"}, "unknown or missing keys in settings"),
        ({"surprise": 1}, "unknown or missing keys in the configuration"),
        ({"progress.step": 101}, "step is 101"),
        ({"progress.total_steps": 2**53 + 1}, "total_steps is"),
        ({"progress.loss_count": -1}, "loss_count is -1"),
        ({"progress.parts": 4}, "parts is 4"),
        ({"corpus.sha256": "C0" * 32}, "sha256 is"),
        ({"format": True}, "not a number"),
        ({"progress.best_loss": None}, "only one of"),
        ({"characters": "aab\\\u00e9漢\U0001f600\n"}, "a character twice"),
        ({"characters": ""}, "no characters"),
        ({"characters": "a\ud800"}, "half a character"),
        ({"characters": ["a", "b"]}, "no characters"),
        ({"settings.vocabulary": "ascii"}, "fixed vocabulary"),
        ({"settings.split_at": "a\ud800"}, "split_at is"),
    ],
)
def test_a_forged_configuration_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_bytes(forged(change))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"embedding": np.full((8, 4), np.nan, np.float32)}, "not finite"),
        ({"embedding": np.zeros((4, 8), np.float32)}, "does not match its configuration"),
        ({"embedding": np.zeros((8, 4), np.float64)}, "does not match its configuration"),
        ({"extra": np.zeros(1, np.float32)}, "does not match its configuration"),
    ],
)
def test_forged_tensors_are_refused(tensors: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_bytes(forged(None, **tensors))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a charrnn checkpoint"),
        (b"\x80\x04\x95pickle, of all things", "not a charrnn checkpoint"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "not a charrnn checkpoint"),
        (b"PK\x03\x04" + bytes(100), "not a charrnn checkpoint"),
        ((2**63).to_bytes(8, "little") + b"{}", "header"),
        ((10**6).to_bytes(8, "little") + b"{}", "truncated"),
        ((100_000).to_bytes(8, "little") + b"{" + b'"a":{' * 19_999 + bytes(10_000), "not JSON"),
        ((100_000).to_bytes(8, "little") + b"{" + b"[]," * 40_000, "too many values"),
        ((0).to_bytes(8, "little") + b"{}", "length"),
        ((9).to_bytes(8, "little") + b'{"a":NaN}', "not one that charrnn"),
        (safetensors_save({"a": np.zeros(1)}), "not one that charrnn"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_bytes(data)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero"), tmp_path / "absent", tmp_path / "loop"):
        with pytest.raises(CharrnnError):
            load(path)


@pytest.mark.parametrize(
    "head", [b"", (0).to_bytes(8, "little") + b"{", GOOD[: 8 + int.from_bytes(GOOD[:8], "little")]]
)
def test_a_huge_file_is_refused_unread(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "sparse.safetensors"
    path.write_bytes(head)
    os.truncate(path, 1 << 40)  # which no memory holds
    with pytest.raises(CharrnnError, match=r"not a charrnn checkpoint|continues after its last tensor"):
        load(path)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotWrittenError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_a_link_in_the_temporary_files_place_is_not_followed(tmp_path: Path) -> None:
    """A stranger's folder of a run may hold one, in wait for the id of a process."""
    path, victim = tmp_path / "loss.png", tmp_path / "victim"
    victim.write_text("whole")
    (tmp_path / f".loss.png.{os.getpid()}.tmp").symlink_to(victim)
    write_atomically(path, b"picture")
    assert (victim.read_text(), path.read_bytes()) == ("whole", b"picture")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["loss.png", "victim"]


@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
def test_each_format_ever_written_is_read_and_written_again_to_the_same_bytes(version: int) -> None:
    """Each file is of the last charrnn that wrote this format; all of the validation part was scored then."""
    data = (Path(__file__).parent / "data" / f"format_{version}.safetensors").read_bytes()
    found = from_bytes(data)
    assert found.format == version
    assert (found.vocabulary == Vocabulary.ascii()) == (version == 2)  # which a model of format 2 knows all of
    assert found.progress.final_characters == found.corpus.validation_characters
    assert to_bytes(found) == data
    assert json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["charrnn"].count(
        checksum(found)
    )
    assert from_bytes(to_bytes(dataclasses.replace(found, format=FORMAT_VERSION))).format == FORMAT_VERSION


def test_a_head_is_read_without_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(GOOD)
    whole = load(path)
    path.write_bytes(GOOD[:-8] + b"damaged!")
    head = read_head(path)
    assert (head.settings, head.progress, head.corpus) == (whole.settings, whole.progress, whole.corpus)
    with pytest.raises(CharrnnError, match="the checksum differs"):
        load(path)
    path.write_bytes(GOOD[:-8])
    with pytest.raises(CharrnnError, match="the file ends before its last tensor does"):
        read_head(path)
