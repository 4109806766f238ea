"""How messages are worded and written."""

from __future__ import annotations

import subprocess
import sys

import pytest

from charrnn.messages import one_line, plural, show, show_controls


def test_control_characters_are_shown_as_escapes() -> None:
    assert show_controls("a\x1b[31m\tb\n\x07\x9b\x7f") == "a\\x1b[31m\tb\n\\x07\\x9b\\x7f"
    assert show_controls("a\r\u202eb\u2066c") == "a\\r\\u202eb\\u2066c"
    for text in ("\U0001f469\u200d\U0001f467", "\u05d0\u200f\u05d1", "e\u0301", "\ufeff", "\u4e00"):
        assert show_controls(text) == text
    assert one_line("a\nb\x1b c\udc80é漢") == "a\\nb\\x1b c\\udc80é漢"


def test_words() -> None:
    assert plural(1, "character") == "1 character"
    assert plural(1234, "character") == "1,234 characters"
    assert [show(c) for c in ("é", " ", "\n", "\u200b")] == ["é", "U+0020", "U+000A", "U+200B"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a Unix shell")
@pytest.mark.parametrize("stderr", ["2>&-", "2>&1 >/dev/null | true"])
def test_a_stderr_that_is_closed_or_not_read_is_no_obstacle(stderr: str) -> None:
    code = (
        "import time; from charrnn.messages import say; [(say('x'), time.sleep(0.05)) for _ in range(5)]; print('end')"
    )
    result = subprocess.run(
        f"'{sys.executable}' -c \"{code}\" {stderr}; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode in (0, 120)  # 120: Python itself, flushing at exit; the command sees to that
    assert "x" not in result.stdout
