"""Well-known texts: a table of them, their sources, and how to put them on the user's disk."""

from __future__ import annotations

import codecs
import hashlib
import os
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from charrnn import CharrnnError
from charrnn.files import write_atomically
from charrnn.messages import plural, waiting_for

if TYPE_CHECKING:
    from requests import Session


@dataclass(frozen=True)
class Download:
    """A text on the web, identified by its checksum."""

    url: str
    sha256: str
    size: int  # bytes
    distinct: int  # distinct characters

    def read(self) -> bytes:
        """Download the text over https and check the server's certificate.

        Raises:
            CharrnnError: the server cannot be reached, or the download does not match the checksum.
        """
        from requests import exceptions

        data = bytearray()
        try:
            with _https_only() as session, session.get(self.url, stream=True, timeout=30) as response:
                if not response.ok:
                    raise CharrnnError(
                        f"{self.url}: the server answered {response.status_code} {response.reason}; try again later"
                    )
                for piece in response.iter_content(1 << 16):
                    data += piece
                    if len(data) > self.size:
                        break
        except exceptions.SSLError as error:
            raise CharrnnError(f"{self.url}: its certificate cannot be verified: {_root_cause(error)}") from None
        except exceptions.InvalidSchema as error:
            if "SOCKS" in str(error):
                raise CharrnnError(
                    f"{self.url}: cannot be reached: HTTPS_PROXY or ALL_PROXY names a SOCKS proxy, which needs one "
                    "more package: python -m pip install pysocks"
                ) from None
            raise CharrnnError(f"{self.url}: redirects away from https, which charrnn does not follow") from None
        except (exceptions.ProxyError, exceptions.InvalidProxyURL) as error:
            raise CharrnnError(
                f"{self.url}: the proxy that HTTPS_PROXY or ALL_PROXY names cannot be used: {_root_cause(error)}"
            ) from None
        except exceptions.ChunkedEncodingError:
            raise CharrnnError(f"{self.url}: the connection was lost before the text was complete; try again") from None
        except exceptions.RequestException as error:
            raise CharrnnError(
                f"{self.url}: cannot be reached: {_root_cause(error)}; check that this machine is online and try again"
            ) from None
        except OSError as error:  # not an error of requests itself: a file that it was told to use is missing
            raise CharrnnError(
                f"{self.url}: its certificate cannot be verified: {error} (see REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE)"
            ) from None
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise CharrnnError(
                f"{self.url}: the download is not the expected text (its sha256 differs) and was not kept"
            )
        return bytes(data)


class StandardLibrary:
    """The sources of the running Python's own standard library, joined in the order of their names."""

    _LEFT_OUT = frozenset(("test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"))

    @cached_property
    def _data(self) -> bytes:
        folder = Path(sysconfig.get_path("stdlib"))
        paths: list[Path] = []
        for parent, folders, names in os.walk(folder, onerror=_unreadable):
            # Skip these folders entirely: packages there may be installed or removed during the walk.
            folders[:] = set(folders) - self._LEFT_OUT
            paths += [Path(parent, name) for name in names if name.endswith(".py")]
        data = b"".join(map(_source, sorted(paths, key=lambda path: path.relative_to(folder).as_posix())))
        if not data:
            raise CharrnnError(f"{folder}: has no Python sources: this Python was installed without them")
        return data

    @property
    def size(self) -> int:
        """Size in bytes."""
        return len(self._data)

    @property
    def distinct(self) -> int:
        """The number of distinct characters."""
        return len(set(self._data.decode()))

    @property
    def sha256(self) -> str:
        """SHA-256 of its bytes."""
        return hashlib.sha256(self._data).hexdigest()

    def read(self) -> bytes:
        """Return the whole text at once."""
        return self._data


def _unreadable(error: OSError) -> NoReturn:
    raise CharrnnError(f"{error.filename}: cannot be read: {error.strerror or error}") from None


def _source(path: Path) -> bytes:
    """Read a source file and end it with a newline; return nothing if it is not UTF-8."""
    try:
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
        data.decode()
    except UnicodeDecodeError:
        return b""
    except OSError as error:
        _unreadable(error)
    return data if data.endswith(b"\n") or not data else data + b"\n"


@dataclass(frozen=True)
class KnownText:
    """A row of the table."""

    about: str
    licence: str
    source: Download | StandardLibrary


TEXTS = {
    "shakespeare": KnownText(
        'plays by Shakespeare: the "tinyshakespeare" of char-rnn, the field\'s benchmark',
        "public domain",
        Download(
            "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
            sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            size=1_115_394,
            distinct=65,
        ),
    ),
    "python": KnownText("the standard library of the Python that runs charrnn", "PSF-2.0", StandardLibrary()),
}


def describe() -> Iterator[str]:
    """Describe each text in one line: name, size, distinct characters, licence, contents."""
    for name, text in TEXTS.items():
        yield (
            f"{name:12}{text.source.size / 1e6:5.1f} MB  {plural(text.source.distinct, 'distinct character')}, "
            f"{text.licence}: {text.about}"
        )


def put_on_disk(name: str, note: Callable[[str], None]) -> Path:
    """Write a text from the table to NAME.txt in the current folder, unless it is there already.

    Args:
        name: its key in the table.
        note: called with one line if the file is there already.

    Returns:
        The file's path.

    Raises:
        CharrnnError: the text cannot be obtained or written, or another file has its name.
    """
    path, source = Path(f"{name}.txt"), TEXTS[name].source
    try:
        if os.path.lexists(path):
            if hashlib.sha256(path.read_bytes()).hexdigest() != source.sha256:
                raise CharrnnError(
                    f"{path}: a file of that name has other content and was left unchanged; "
                    "rename it, or work in another folder"
                )
            note(f"{path} is there already")
            return path
        with waiting_for(f"getting {path}"):
            data = source.read()
    except OSError as error:
        raise CharrnnError(f"{path}: cannot be read: {error.strerror or error}") from None
    write_atomically(path, data)
    return path


def _https_only() -> Session:
    """A session that retries if that may help and uses only https, even after a redirect."""
    from requests import Session
    from requests.adapters import HTTPAdapter
    from urllib3 import Retry

    # Files that may be unreadable and that charrnn does not need: passwords, and the log of connection keys.
    os.environ["NETRC"] = os.devnull
    os.environ.pop("SSLKEYLOGFILE", None)
    session = Session()
    session.adapters.clear()
    session.mount(
        "https://",
        HTTPAdapter(
            max_retries=Retry(3, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False)
        ),
    )
    return session


def _root_cause(error: BaseException) -> str:
    """The operating system's message, beneath the exceptions that libraries wrapped around it."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return getattr(error, "strerror", None) or str(error)
