"""Checkpoints that a forger made: each with a right checksum, and one thing that no checkpoint has."""

from __future__ import annotations

import functools
import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from _forge import BODY, DOCUMENT, GOOD, HEAD, HEADER, forged, of_metadata, with_header

from charrnn.runs.checkpoint import FORMATS

Content = bytes | Callable[[Path], object]  # of a file, or what puts something in its place
Named = Iterator[tuple[str, Content]]


def lazily(make: Callable[[], bytes]) -> Content:
    """Of large files: made where they are needed, not all at once."""
    return lambda path: path.write_bytes(make())


def hostile_json() -> Named:
    """JSON that is deep, huge, or not quite JSON: as the header, and as the configuration within it."""
    most = 1 << 24
    for name, start, unit, end in (
        ("deep objects", b'{"a":', b'{"a":', b""),
        ("deep lists", b'{"a":', b"[", b""),
        ("many lists", b'{"a":[0', b",[]", b"]}"),
        ("many objects", b'{"a":[0', b",{}", b"]}"),
        ("many strings", b'{"a":[0', b',""', b"]}"),
        ("many keys", b'{"a":0', b',"a":0', b"}"),
        ("digits", b'{"a":', b"9", b"}"),
        ("digits of a fraction", b'{"a":0.', b"9", b"}"),
        ("digits of an exponent", b'{"a":1e', b"9", b"}"),
        ("a long string", b'{"a":"', b"a", b'"}'),
        ("a string without an end", b'{"a":"', b"a", b""),
        ("escapes", b'{"a":"', b"\\n", b'"}'),
        ("emoji", b'{"a":"', b"\\ud83d\\ude00", b'"}'),
        ("half emoji", b'{"a":"', b"\\ud83d", b'"}'),
        ("blanks", b"{", b" ", b"}"),
    ):
        for size in (1000, 100_000, most):
            header = functools.partial(_filled, start, unit, end, size)
            yield f"{name}, {size} bytes", lazily(lambda header=header: with_header(header()))
            inner = functools.partial(_filled, start, unit, end, size // 2)
            yield (
                f"{name}, {size} bytes, inside",
                lazily(lambda inner=inner: of_metadata({"charrnn": inner().decode()})),
            )
    yield (
        "escaped brackets",
        lazily(lambda: with_header(b'{"__metadata__":{"charrnn":"{\\"a\\":' + b"\\u005b" * (most // 7) + b'"}}')),
    )
    header = GOOD[8:HEAD]
    for encoding in ("utf-16", "utf-16-le", "utf-32", "utf-8-sig"):
        yield encoding, with_header(header.decode().encode(encoding))
    yield "not UTF-8", with_header(header.replace(b"utf-8", b"utf\xff8"))
    yield "a NUL", with_header(header.replace(b"utf-8", b"utf\x008"))
    yield "single quotes", with_header(header.replace(b'"', b"'"))
    yield "a comma too many", with_header(header.rstrip()[:-1] + b",}")
    yield "something after it", with_header(header.rstrip() + b"{}")
    yield "a list", with_header(b"[" + header + b"]")
    for word in (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"null", b"true"):
        yield word.decode(), with_header(header.rstrip()[:-1] + b',"x":' + word + b"}")


def _filled(start: bytes, unit: bytes, end: bytes, size: int) -> bytes:
    return start + unit * ((size - len(start) - len(end)) // len(unit)) + end


def wrong_values() -> Named:
    """Each value of the configuration: of another type, negative, fractional, huge, not a number."""
    infinity, nan = float("inf"), float("nan")
    for part in ("settings", "progress", "corpus"):
        for key, good in DOCUMENT[part].items():
            values: list[object] = [True, [], {}, [good], {key: good}]
            if isinstance(good, str):
                values += [None, 1, "", "\ud800", "../x", "\x1b[31m", good + "\0", "x" * 10**6]
            elif isinstance(good, int):
                values += [None, False, -1, 0.5, float(good), str(good), 2**53 + 1, 2**63, 10**4000, nan, infinity, ""]
            else:
                values += [1, -1, "1.0", nan, infinity, -infinity, 10**4000, ""]
            for value in values:
                shown = repr(value)[:20]
                yield f"{part}.{key} is {shown}", forged({**DOCUMENT, part: {**DOCUMENT[part], key: value}})
            word = json.dumps(good).encode().replace(b'"', b'\\"')
            for spelling in (
                b"1e999",
                b"-1e999",
                b"9" * 5000,
                b"0x10",
                b"01",
                b"1_0",
                b"- 1",
                b"+1",
                b"1.",
                b"\\u0031",
            ):
                old = json.dumps(key).encode().replace(b'"', b'\\"') + b": " + word
                assert old in GOOD
                new = GOOD[8:HEAD].replace(old, old[: -len(word)] + spelling)
                yield f"{part}.{key} is {spelling[:20]!r}", with_header(new)


def impossible_sizes() -> Named:
    """Networks that no file holds, with headers that say the same."""
    sizes = (0, -1, 65536, 65537, 10**9, 2**31, 2**32, 2**62, 2**63, 10**30)
    for key in ("embedding", "units", "layers", "batch_size"):
        for size in sizes if key != "batch_size" else (0, -1, 65537, 10**9, 2**63):
            yield f"{key} {size}", _of_size(**{key: size})
    for size in (4096, 65536, 2**31, 2**32, 2**62, 2**64):
        yield f"all {size}", _of_size(embedding=size, units=size, layers=min(size, 100))
        yield f"all {size}, 10^6 layers", _of_size(embedding=size, units=size, layers=10**6)


def _of_size(**sizes: int) -> bytes:
    settings = {**DOCUMENT["settings"], **sizes}
    gates, width, v = 4 * settings["units"], settings["embedding"], len(DOCUMENT["characters"])
    shapes = {"embedding": (v, width)}
    for layer in range(max(0, min(settings["layers"], 100))):
        below = width if layer == 0 else settings["units"]
        shapes[f"layer{layer}.bias"] = (gates,)
        shapes[f"layer{layer}.kernel"] = (below, gates)
        shapes[f"layer{layer}.recurrent_kernel"] = (settings["units"], gates)
    shapes |= {"softmax.bias": (v,), "softmax.kernel": (settings["units"], v)}
    entries, end = {}, 0
    for name, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": (end, end + size)}
        end += size
    return forged({**DOCUMENT, "settings": settings}, **entries)


def wrong_tensors() -> Named:
    """What the header says of the tensors is not what the configuration calls for."""
    names = [name for name in HEADER if name != "__metadata__"]
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [len(BODY), len(BODY) + 4]}
    for name in ("extra", "", "embedding ", "adam.momentum.embedding", "layer1.bias", "../x", "\x00", "__metadata__ "):
        yield f"one more, {name!r}", forged(body=BODY + bytes(4), **{name: entry})
    for name in names:
        good = HEADER[name]
        start, end = good["data_offsets"]
        yield f"{name} missing", forged(**{name: None})
        yield f"{name} missing with its bytes", forged(body=BODY[:start] + BODY[end:], **{name: None})
        yield f"{name} renamed", forged(**{name: None, name + "x": good})
        text = json.dumps({name: good}, separators=(",", ":")).encode()[1:-1]
        assert text in GOOD
        yield f"{name} twice", with_header(GOOD[8:HEAD].replace(text, text + b"," + text))
        yield (
            f"{name} twice, first wrong",
            with_header(GOOD[8:HEAD].replace(text, text.replace(b"F32", b"F64") + b"," + text)),
        )
        for dtype in ("F16", "BF16", "F64", "I32", "U8", "BOOL", "f32", "O", None, 32):
            yield f"{name} of type {dtype}", forged(**{name: {**good, "dtype": dtype}})
        for shape in (
            [],
            [0],
            [*good["shape"], 1],
            good["shape"][::-1] + [1] * (good["shape"] == good["shape"][::-1]),
            [float(side) for side in good["shape"]],
            [-side for side in good["shape"]],
            [2**32, 2**32],
            [2**63],
            [True],
            "4",
            None,
            {},
        ):
            yield f"{name} of shape {shape}", forged(**{name: {**good, "shape": shape}})
        for offsets in (
            [end, start],
            [start, end + 4],
            [start + 4, end + 4],
            [start, len(BODY) + 4],
            [start - 4, end - 4] if start else [4, end + 4],
            [-4, end],
            [float(start), float(end)],
            [2**64 - 4, 2**64],
            [start],
            [start, end, end],
            [False, end] if start == 0 else [True, end],
            None,
            {},
        ):
            yield f"{name} at {offsets}", forged(**{name: {**good, "data_offsets": offsets}})
        yield f"{name} with another key", forged(**{name: {**good, "x": 0}})
        yield f"{name} without a shape", forged(**{name: {k: v for k, v in good.items() if k != "shape"}})
        yield f"{name} is a list", forged(**{name: [good]})
    shared = HEADER[names[0]]["data_offsets"]
    yield "all at one place", forged(**{n: {**HEADER[n], "data_offsets": shared} for n in names})
    yield "in another order", forged(**dict.fromkeys(names[:1]), **{names[0] + " ": HEADER[names[0]]})
    yield "a gap", forged(body=BODY + bytes(4))
    yield (
        "a gap before them",
        forged(
            body=bytes(4) + BODY,
            **{n: {**HEADER[n], "data_offsets": [at + 4 for at in HEADER[n]["data_offsets"]]} for n in names},
        ),
    )


def not_finite(chance: random.Random) -> Named:
    """One weight of each tensor is not a number."""
    for name in [name for name in HEADER if name != "__metadata__"]:
        start, end = HEADER[name]["data_offsets"]
        for value in ("nan", "inf", "-inf"):
            at = chance.randrange(start, end, 4)
            yield f"{value} in {name}", forged(body=BODY[:at] + np.float32(value).tobytes() + BODY[at + 4 :])
        at = chance.randrange(start, end, 4)
        yield f"a signalling nan in {name}", forged(body=BODY[:at] + b"\x01\x00\x80\x7f" + BODY[at + 4 :])


def wrong_vocabularies() -> Named:
    """Characters that stand twice, are none, or are more than one."""
    good = DOCUMENT["characters"]
    for name, characters in {
        "a character twice": good[:-1] + good[0],
        "all the same": "a" * len(good),
        "NUL twice": "\0" * 2 + good[2:],
        "high surrogate": good[:-1] + "\ud83d",
        "low surrogate": good[:-1] + "\ude00",
        "surrogates the wrong way round": good[:-2] + "\ude00\ud83d",
        "one too few": good[:-1],
        "one too many": good + "z",
        "none": "",
        "null": None,
        "a number": 6,
        "true": True,
        "a list of characters": list(good),
        "characters of several letters": ["th", "he", "in", "er", "an", "re"],
        "an object": dict.fromkeys(good, 0),
    }.items():
        yield name, forged({**DOCUMENT, "characters": characters})
    for kind in ("ascii", "bytes"):
        yield f"characters of {kind}", forged({**DOCUMENT, "settings": {**DOCUMENT["settings"], "vocabulary": kind}})
        yield (
            f"tensors of another size than {kind}",
            forged({**DOCUMENT, "characters": None, "settings": {**DOCUMENT["settings"], "vocabulary": kind}}),
        )
    every = "".join(map(chr, itertools.chain(range(0xD800), range(0xE000, 0x110000))))
    yield "every character there is", lazily(lambda: forged({**DOCUMENT, "characters": every}))
    yield "every one, and one twice", lazily(lambda: forged({**DOCUMENT, "characters": every[:-1] + "a"}))
    yield "two million emoji", lazily(lambda: forged({**DOCUMENT, "characters": "\U0001f600" * 2_000_000}))


def wrong_checksums() -> Named:
    """All else is right."""
    digits = DOCUMENT["checksum"].encode()
    for name, new in {
        "zeros": b"0" * 64,
        "large letters": digits.upper(),
        "one digit short": digits[:-1],
        "one digit more": digits + b"0",
        "none": b"",
        "its first digit at the end": digits[1:] + digits[:1],
    }.items():
        header = GOOD[8:HEAD].replace(digits, new)
        yield name, len(header).to_bytes(8, "little") + header + BODY
    for value in (None, 0, True, [], {}, int(digits, 16)):
        yield repr(value)[:20], forged({**DOCUMENT, "checksum": value})


def wrong_keys() -> Named:
    """Keys missing, unknown, twice, or at the wrong place."""
    for key in DOCUMENT:
        yield f"no {key}", forged({k: v for k, v in DOCUMENT.items() if k != key})
        yield f"{key} spelled {key.upper()}", forged({(k.upper() if k == key else k): v for k, v in DOCUMENT.items()})
        text = json.dumps(DOCUMENT, sort_keys=True)
        pair = json.dumps({key: DOCUMENT[key]}, sort_keys=True)[1:-1]
        assert pair in text
        yield f"{key} twice", of_metadata({"charrnn": text.replace(pair, f"{pair}, {pair}")})
    for part in ("settings", "progress", "corpus"):
        for key in DOCUMENT[part]:
            yield f"no {part}.{key}", forged({**DOCUMENT, part: {k: v for k, v in DOCUMENT[part].items() if k != key}})
        yield f"unknown key in {part}", forged({**DOCUMENT, part: {**DOCUMENT[part], "x": 1}})
        for value in (None, [], {}, "x", 0, list(DOCUMENT[part])):
            yield f"{part} is {str(value)[:20]}", forged({**DOCUMENT, part: value})
    for key in ("__class__", "__reduce__", "module", "x"):
        yield f"unknown key {key}", forged({**DOCUMENT, key: "os.system"})
    text = json.dumps(DOCUMENT, sort_keys=True)
    for name, metadata in {
        "another key beside it": {"charrnn": text, "format": "pt"},
        "another key": {"format": "pt"},
        "nothing": {},
        "not nested": DOCUMENT,
        "a list": [text],
        "a string": text,
        "null": None,
        "not a string": {"charrnn": DOCUMENT},
        "a number": {"charrnn": 1},
        "a list as the configuration": {"charrnn": "[]"},
        "null as the configuration": {"charrnn": "null"},
        "no configuration": {"charrnn": ""},
    }.items():
        yield f"metadata: {name}", of_metadata(metadata)
    yield "no metadata", with_header(json.dumps({k: v for k, v in HEADER.items() if k != "__metadata__"}).encode())


def other_spellings() -> Named:
    """The same values, written in another way than charrnn writes them."""
    header = GOOD[8:HEAD]
    for old, new in (
        (b'{"__metadata__"', b' {"__metadata__"'),
        (b'{"__metadata__"', b'{"\\u005f_metadata__"'),
        (b'"shape":', b'"shape": '),
        (b'"dtype":"F32",', b""),
        (b'"F32"', b'"F\\u00332"'),
        (b'\\"units\\": 4', b'\\"units\\":4'),
        (b'\\"units\\": 4', b'\\"units\\": 4.0'),
        (b'\\"units\\": 4', b'\\"units\\": 4e0'),
        (b'\\"units\\": 4', b'\\"units\\": -0'),
        (b'\\"dropout\\": 0.1', b'\\"dropout\\": 0.10'),
        (b'\\"dropout\\": 0.1', b'\\"dropout\\": 1e-1'),
        (b'\\"dropout\\": 0.1', b'\\"dropout\\": 0.1000000000000000000001'),
        (b'\\"lstm\\"', b'\\"\\\\u006cstm\\"'),
        (b"\\\\u00e9", b"\\\\u00E9"),
        (b"\\\\u00e9", b"\\u00e9"),
    ):
        assert old in header
        yield f"{old.decode()} as {new.decode()}", with_header(header.replace(old, new, 1))
    for name, text in {
        "indented": json.dumps(HEADER, indent=1),
        "keys backwards": json.dumps(dict(reversed(HEADER.items())), separators=(",", ":")),
        "configuration backwards": json.dumps(
            {**HEADER, "__metadata__": {"charrnn": json.dumps(dict(reversed(DOCUMENT.items())))}}, separators=(",", ":")
        ),
    }.items():
        yield name, with_header(text.encode())
    for blanks in (b" ", b" " * 8, b" " * 1000, b"\n", b"\0"):
        yield f"{len(blanks)} of {blanks[:1]!r} after it", with_header(header + blanks)


def other_versions() -> Named:
    """Formats of the future, and of none."""
    for version in (0, 1, *FORMATS[:-1], FORMATS[-1] + 1, -1, 10**30, 1.0, 1.5, "1", True, None, [], [1], {}):
        yield repr(version), forged({**DOCUMENT, "format": version})
    yield "4, with other keys", forged({"format": 4, "model": {}, "checksum": "0" * 64})
    yield "2, with what 3 added as null", forged({**DOCUMENT, "format": 2, "known": None, "seen": None})
    for key in ("known", "seen"):
        yield f"without {key}", forged({name: value for name, value in DOCUMENT.items() if name != key})


def wrong_characters() -> Named:
    """Characters that the model knows, or its text has, and which cannot be."""
    everything, known, seen = (DOCUMENT[key] for key in ("characters", "known", "seen"))
    for key, good in (("known", known), ("seen", seen)):
        for value in (
            1,
            True,
            [],
            [good],
            {},
            "",
            everything,
            good[::-1],
            good + good[-1],
            good + "z",
            good + "\ud800",
        ):
            yield f"{key} is {value!r}", forged({**DOCUMENT, key: value})
    yield "seen and known exchanged", forged({**DOCUMENT, "known": seen, "seen": known})
    yield "seen what is not known", forged({**DOCUMENT, "seen": None})
    yield (
        "known bytes",
        forged({**DOCUMENT, "characters": None, "settings": {**DOCUMENT["settings"], "vocabulary": "bytes"}}),
    )
