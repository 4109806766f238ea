"""Well-known texts: downloaded over https from a server on this machine, or made of this Python's own sources."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
import trustme
from conftest import Command, corpus, environment

from charrnn import CharrnnError
from charrnn.text.wellknown import TEXTS, StandardLibrary

DATA = b"The ferry leaves at six.\n" * 20_000


class Handler(BaseHTTPRequestHandler):
    """Serves what the path says, and keeps the paths that were asked for."""

    asked: list[str]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a request."""
        self.asked.append(self.path)
        match self.path.split("/", 2)[1:]:
            case ["text"]:
                self.answer(200, DATA)
            case ["slow"]:
                self.answer(200, DATA, pause=1.5)
            case ["busy"]:
                self.answer(503 if self.asked.count("/busy") < 3 else 200, DATA)
            case ["other"]:
                self.answer(200, DATA[::-1])
            case ["longer"]:
                self.answer(200, DATA + b"x")
            case ["cut"]:
                self.answer(200, DATA, sent=len(DATA) // 2)
            case ["to", where]:
                self.answer(302, b"", unquote(where))
            case _:
                self.answer(404, b"")

    def answer(
        self, status: int, body: bytes, location: str | None = None, sent: int | None = None, pause: float = 0
    ) -> None:
        """Send a head and a body, in two parts with a pause between, the body perhaps only up to `sent`."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body[: len(body) // 3])
        time.sleep(pause)
        self.wfile.write(body[len(body) // 3 : sent])
        self.close_connection = sent is not None

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@dataclass(frozen=True)
class Served:
    """Two servers of the same, by https and by http, and the certificate authority that vouches for the first."""

    https: str
    http: str
    authority: Path
    asked: list[str]


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    authority = trustme.CA()
    certificates = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(certificates)
    trusted = tmp_path_factory.mktemp("authority") / "trusted.pem"
    authority.cert_pem.write_to_path(str(trusted))
    asked: list[str] = []
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), type("Recording", (Handler,), {"asked": asked})) for _ in range(2)]
    servers[0].socket = certificates.wrap_socket(servers[0].socket, server_side=True)
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in servers]
    for thread in threads:
        thread.start()
    https, http = (f"://localhost:{server.server_port}" for server in servers)
    yield Served(f"https{https}", f"http{http}", trusted, asked)
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        thread.join()
        server.server_close()


def command_for(url: str, sha256: str = hashlib.sha256(DATA).hexdigest()) -> list[str]:
    """The command `charrnn corpus served`, with a row for `served` added to the table."""
    code = (
        "import sys\n"
        "from charrnn.text.wellknown import TEXTS, Download, KnownText\n"
        f"TEXTS['served'] = KnownText('a test', 'CC0', Download({url!r}, {sha256!r}, {len(DATA)}, 16))\n"
        "sys.argv[0] = 'charrnn'\n"
        "from charrnn.cli.main import main\n"
        "main()\n"
    )
    return [sys.executable, "-c", code, "corpus", "served"]


def trusting(authority: Path) -> dict[str, str]:
    return environment() | {"REQUESTS_CA_BUNDLE": str(authority), "NO_PROXY": "localhost"}


def fetch(
    folder: Path, served: Served, url: str, sha256: str = hashlib.sha256(DATA).hexdigest()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_for(url, sha256),
        cwd=folder,
        capture_output=True,
        text=True,
        env=trusting(served.authority),
        check=False,
    )


# --- what arrives ----------------------------------------------------------------------------


def test_a_text_is_downloaded_once_and_then_left_alone(served: Served, tmp_path: Path) -> None:
    first = fetch(tmp_path, served, f"{served.https}/text")
    assert first.returncode == 0, first.stderr
    assert first.stdout == "served.txt\n"
    assert first.stderr == "train on it with: charrnn train served.txt\n"
    assert (tmp_path / "served.txt").read_bytes() == DATA
    assert [path.name for path in tmp_path.iterdir()] == ["served.txt"]
    before = (tmp_path / "served.txt").stat()
    second = fetch(tmp_path, served, f"{served.https}/text")
    assert second.returncode == 0
    assert second.stdout == first.stdout
    assert "served.txt is there already" in second.stderr
    assert (tmp_path / "served.txt").stat() == before
    assert served.asked == ["/text"]


def test_a_busy_server_is_asked_again_and_a_redirect_within_https_followed(served: Served, tmp_path: Path) -> None:
    result = fetch(tmp_path, served, f"{served.https}/to/{served.https}/busy")
    assert result.returncode == 0, result.stderr
    assert served.asked.count("/busy") == 3
    assert (tmp_path / "served.txt").read_bytes() == DATA


def test_another_file_of_that_name_is_not_overwritten(served: Served, tmp_path: Path) -> None:
    (tmp_path / "served.txt").write_text("my own")
    result = fetch(tmp_path, served, f"{served.https}/text")
    assert result.returncode == 1
    assert result.stderr.startswith("Error: served.txt: a file of that name has other content")
    assert (tmp_path / "served.txt").read_text() == "my own"
    assert served.asked == []


def test_a_terminal_shows_what_the_command_waits_for(served: Served, tmp_path: Path) -> None:
    pexpect = pytest.importorskip("pexpect", reason="a terminal to drive needs Unix")
    program, *args = command_for(f"{served.https}/slow")
    child = pexpect.spawn(
        program,
        args,
        cwd=str(tmp_path),
        env=trusting(served.authority) | {"TERM": "xterm-256color"},
        dimensions=(24, 100),
        encoding="utf-8",
        timeout=60,
    )
    child.expect(r"getting served\.txt \.\.\.")
    rest = child.read()
    child.close()
    assert child.exitstatus == 0
    assert "train on it with" in rest
    assert (tmp_path / "served.txt").read_bytes() == DATA


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/other", "its sha256 differs"),
        ("/longer", "its sha256 differs"),
        ("/cut", "the connection was lost before the text was complete"),
        ("/absent", "the server answered 404"),
        ("/to/{http}/text", "redirects away from https"),
        ("/to/ftp://localhost/text", "redirects away from https"),
        ("/to/file://{file}", "redirects away from https"),
    ],
)
def test_what_is_not_the_very_text_is_refused_and_leaves_no_file(
    served: Served, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, path: str, says: str
) -> None:
    file = tmp_path_factory.mktemp("elsewhere") / "text"
    file.write_bytes(DATA)
    result = fetch(tmp_path, served, served.https + path.format(http=served.http, file=file))
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: {served.https}/")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert len(served.asked) == 1  # where it was sent to was not asked


def test_the_checksum_is_that_of_the_table(served: Served, tmp_path: Path) -> None:
    result = fetch(tmp_path, served, f"{served.https}/text", sha256="0" * 64)
    assert result.returncode == 1
    assert "its sha256 differs" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_nobody_vouches_for_is_refused(served: Served, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(served.authority))
    result = fetch(tmp_path, served, f"{served.https}/text")
    assert result.returncode == 1
    assert "its certificate cannot be verified" in result.stderr
    assert served.asked == []
    assert list(tmp_path.iterdir()) == []


def test_plain_http_is_refused_even_in_the_table(served: Served, tmp_path: Path) -> None:
    result = fetch(tmp_path, served, f"{served.http}/text")
    assert result.returncode == 1
    assert "redirects away from https" in result.stderr
    assert served.asked == []


def test_without_a_network_it_says_so_in_one_line(served: Served, tmp_path: Path) -> None:
    result = fetch(tmp_path, served, "https://localhost:9/text")  # where nobody listens
    assert result.returncode == 1
    assert result.stderr == (
        "Error: https://localhost:9/text: cannot be reached: Connection refused; "
        "check that this machine is online and try again\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"REQUESTS_CA_BUNDLE": "/nowhere.pem"}, "/nowhere.pem"),
        ({"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": "/nowhere.pem"}, "/nowhere.pem"),
        ({"NO_PROXY": "", "HTTPS_PROXY": "socks5://localhost:9"}, "names a SOCKS proxy, which needs one more package"),
        ({"NO_PROXY": "", "HTTPS_PROXY": "http://localhost:9"}, "the proxy that HTTPS_PROXY or ALL_PROXY names"),
        ({"NO_PROXY": "", "HTTPS_PROXY": "http://no.such.host.invalid:9"}, "the proxy that HTTPS_PROXY or ALL_PROXY"),
    ],
)
def test_a_setting_of_the_users_that_does_not_work_is_named(
    served: Served, tmp_path: Path, variables: dict[str, str], says: str
) -> None:
    result = subprocess.run(
        command_for(f"{served.https}/text"), cwd=tmp_path, env=trusting(served.authority) | variables,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.startswith(f"Error: {served.https}/text: ")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_files_that_a_download_does_not_need_are_not_read(
    served: Served, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / ".netrc").write_bytes(b"machine localhost login \xd7 password x\n")
    unreadable = {"HOME": str(home), "SSLKEYLOGFILE": "/nowhere/keys"}
    result = subprocess.run(
        command_for(f"{served.https}/text"), cwd=tmp_path, env=trusting(served.authority) | unreadable,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


# --- the table -------------------------------------------------------------------------------


def test_the_table_is_shown_with_size_characters_and_licence(charrnn: Command) -> None:
    result = charrnn("corpus", "--list")
    assert result.returncode == 0
    assert result.stderr == ""
    shakespeare, python = result.stdout.splitlines()
    assert shakespeare.split()[:4] == ["shakespeare", "1.1", "MB", "65"]
    assert "public domain" in shakespeare
    assert python.startswith("python ")
    assert "PSF-2.0" in python


def test_shakespeare_is_known_by_the_right_checksum() -> None:
    data = corpus("tinyshakespeare.txt").read_bytes()
    source = TEXTS["shakespeare"].source
    assert source.sha256 == hashlib.sha256(data).hexdigest()
    assert (source.size, source.distinct) == (len(data), len(set(data.decode())))


def test_pythons_own_sources_make_a_text_the_same_each_time(charrnn: Command, tmp_path: Path) -> None:
    result = charrnn("corpus", "python")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "python.txt\n"
    text = (tmp_path / "python.txt").read_text(encoding="utf-8")
    assert 5_000_000 < len(text) < 20_000_000
    library = Path(sysconfig.get_path("stdlib"))
    for inside in ("this.py", "json/decoder.py", "http/server.py"):
        assert (library / inside).read_text(encoding="utf-8") in text
    for outside in [*library.glob("test/test_b*.py"), *library.glob("*/test*/test_c*.py")]:
        assert outside.read_text(encoding="utf-8", errors="replace") not in text
    assert text.index((library / "abc.py").read_text()) < text.index((library / "typing.py").read_text())
    (tmp_path / "python.txt").rename(tmp_path / "first.txt")
    assert charrnn("corpus", "python").returncode == 0
    assert (tmp_path / "first.txt").read_bytes() == (tmp_path / "python.txt").read_bytes()
    assert "is there already" in charrnn("corpus", "python").stderr
    (tmp_path / "python.txt").write_bytes(b"changed")
    assert charrnn("corpus", "python").returncode == 1
    assert (tmp_path / "python.txt").read_bytes() == b"changed"


def test_a_source_that_cannot_be_read_is_named_and_what_is_installed_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "gone.py").symlink_to("nowhere")
    (tmp_path / "here.py").write_text("pass\n")
    assert StandardLibrary().size == 5
    (tmp_path / "gone.py").symlink_to("nowhere")
    with pytest.raises(CharrnnError, match=r"gone\.py: cannot be read: No such file or directory"):
        _ = StandardLibrary().size
