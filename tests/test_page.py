"""`charrnn page`, in a real browser: Debian's Chromium through Playwright."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PROJECT, Command, chain_model, environment

from charrnn.network.config import weight_shapes
from charrnn.network.network import Network
from charrnn.page.features import FEATURES
from charrnn.page.neurons import best_cell, find_neurons, untrained_weights
from charrnn.page.page import half_width
from charrnn.runs import checkpoint
from charrnn.runs.folder import Run
from charrnn.runs.records import Checkpoint
from charrnn.text.vocabulary import Vocabulary

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TEXT = (PROJECT / "data" / "tales.txt").read_text(encoding="utf-8")[:30_000]
ASCII = dataclasses.replace(Vocabulary.ascii(), has_boundary=True, writes_boundary=True)


def model_of(cell: str, layers: int, vocabulary: Vocabulary, units: int = 30) -> Checkpoint:
    """A model with random weights, large enough for its distributions to be far from even."""
    model = chain_model(vocabulary, vocabulary.characters[:3])
    settings = dataclasses.replace(model.settings, cell=cell, layers=layers, units=units, embedding=9)
    random = np.random.default_rng(layers)
    shapes = weight_shapes(settings.network(vocabulary))
    scale = {name: 0.15 if "recurrent" in name else 0.5 for name in shapes}  # larger ones enlarge rounding errors
    weights = {name: random.normal(0, scale[name], shape).astype(np.float32) for name, shape in shapes.items()}
    return dataclasses.replace(model, settings=settings, weights=weights)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Page:
    """An open page; its complaints and requests are kept."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.said: list[str] = []
        self.requests: list[str] = []
        self.tab = browser.new_page(**options)
        self.tab.on("console", lambda message: self.said.append(message.text))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(path.as_uri())
        self.wait_until_written()

    def wait_until_written(self) -> None:
        """Wait until nothing is being written."""
        from playwright.sync_api import expect

        expect(self.tab.locator("#more")).to_be_enabled(timeout=60_000)

    def written(self) -> str:
        """The text, with its beginning."""
        return str(self.tab.evaluate("document.getElementById('written').textContent"))

    def write(self, **fields: object) -> str:
        """Fill in the form, write, and return the text."""
        for name, value in fields.items():
            self.tab.fill(f"#{name.replace('_', '-')}", str(value))
        self.tab.click("#write")
        self.wait_until_written()
        return self.written()

    def read(self, text: str) -> None:
        """Let the page read a text."""
        from playwright.sync_api import expect

        self.tab.fill("#source", text)
        self.tab.click("#read")
        expect(self.tab.locator("#look-status")).to_contain_text("nats per character", timeout=60_000)

    def close(self) -> None:
        """Close the page, which must have complained of nothing and asked nobody for anything."""
        assert self.said == []
        assert [url for url in self.requests[1:] if not url.startswith("blob:")] == []
        self.tab.close()


def make(charrnn: Command, folder: Path, model: Checkpoint, *options: object) -> Path:
    (folder / "model.safetensors").write_bytes(checkpoint.to_bytes(model))
    result = charrnn("page", "model.safetensors", "--out", "model.html", *options)
    assert (result.returncode, result.stdout) == (0, "model.html\n"), result.stderr
    return folder / "model.html"


@pytest.mark.parametrize(
    ("cell", "layers", "vocabulary"),
    [
        ("coupled", 1, Vocabulary.ascii()),
        ("coupled", 3, ASCII),
        ("lstm", 2, Vocabulary("text", "\n abc\u00e9\u6f22\U0001f600")),
        ("gru", 2, dataclasses.replace(Vocabulary.bytes(), has_boundary=True, writes_boundary=True)),
        ("gru", 1, ASCII),
        ("rnn", 3, Vocabulary.bytes()),
    ],
)
def test_the_page_computes_what_numpy_does(
    tmp_path: Path, charrnn: Command, browser: Any, cell: str, layers: int, vocabulary: Vocabulary
) -> None:
    model = model_of(cell, layers, vocabulary)
    page = Page(browser, make(charrnn, tmp_path, model))
    ids = np.random.default_rng(0).integers(0, len(vocabulary), 200)
    found = page.tab.evaluate(
        "ids => new Promise(done => ask('logits', {ids}, ({logits}) => done(logits)))", ids.tolist()
    )
    network = Network(model.config, half_width(model))
    expected, _ = network.forward(ids[None], network.zero_state())
    np.testing.assert_allclose(np.array(found), expected[0], atol=1e-3)
    page.close()


def test_a_seed_gives_the_same_text_and_the_controls_do_what_they_say(
    tmp_path: Path, charrnn: Command, browser: Any
) -> None:
    page = Page(browser, make(charrnn, tmp_path, model_of("coupled", 2, Vocabulary.ascii())))
    own = page.written()
    assert len(own) == 500
    first = page.write(prime="The quick ", seed=7, length=60)
    assert first.startswith("The quick ")
    assert len(first) == 70
    assert page.write(seed=8) != first
    assert page.write(seed=7) == first
    assert page.write(temperature=0, seed=1) == page.write(seed=2)
    assert page.write(temperature=1, top_p=0.01, seed=1) == page.write(temperature=0, top_p=1)

    page.tab.click("#more")
    page.wait_until_written()
    longer = page.written()
    assert len(longer) == 130

    # A character of those expected next is taken, by mouse and by keyboard; going back keeps what was there.
    wanted = page.tab.locator("#next button kbd").nth(3).inner_text()
    page.tab.locator("#next button").nth(3).click()
    page.wait_until_written()
    assert page.written() == longer + {"space": " ", "newline": "\n", "tab": "\t"}.get(wanted, wanted)
    page.tab.locator("#written").focus()
    page.tab.keyboard.press("Backspace")
    page.wait_until_written()
    page.tab.keyboard.press("x")
    page.wait_until_written()
    assert page.written() == longer + "x"
    page.tab.locator("#next button").first.focus()
    page.tab.keyboard.press("Enter")
    page.wait_until_written()
    assert len(page.written()) == 132
    before = page.tab.locator("#earlier button").count()
    assert before >= 1
    page.tab.locator("#earlier button").last.click()  # the first text that was left
    page.wait_until_written()
    assert page.written() == own
    assert page.tab.locator("#earlier button").count() == before  # one goes, one comes

    # A click in the text goes back to that place.
    page.tab.locator("#earlier button").first.click()
    page.wait_until_written()
    page.tab.locator("#written .prime").click()  # in its middle
    page.wait_until_written()
    assert 0 < len(page.written()) < 10
    assert "The quick ".startswith(page.written())

    # No length is written that is none.
    text = page.written()
    page.tab.fill("#length", "-5")
    page.tab.click("#more")
    page.wait_until_written()
    assert page.written() == text

    # Writing can be stopped, and the page answers meanwhile.
    page.tab.fill("#length", "100000")
    page.tab.click("#more")
    page.tab.wait_for_timeout(300)
    page.tab.click("#stop")
    page.wait_until_written()
    assert 10 < len(page.written()) < 100_000
    page.close()


def test_a_text_that_the_model_ends_says_so_and_more_begins_the_next(
    tmp_path: Path, charrnn: Command, browser: Any
) -> None:
    vocabulary = dataclasses.replace(Vocabulary("text", "ab"), has_boundary=True, writes_boundary=True)
    page = Page(browser, make(charrnn, tmp_path, chain_model(vocabulary, "ab\0")))
    assert page.write(temperature=0, length=100) == "ab\n"
    assert "; the model ended the text" in page.tab.inner_text("#play-status")
    page.tab.locator("#more").focus()
    page.tab.keyboard.press("Enter")
    page.wait_until_written()
    page.tab.keyboard.press("Enter")  # it still has the focus
    page.wait_until_written()
    assert page.written() == "ab\nab\nab\n"
    page.tab.fill("#length", "")
    page.tab.click("#more")
    assert page.tab.evaluate("document.activeElement.id") == "length"  # which the browser asks to fill in

    # The focus stays in the list, and the end of the text in sight.
    page.write(prime="b" * 3000, length=1)
    page.tab.locator("#next button").nth(1).focus()
    for _ in range(2):
        page.tab.keyboard.press("Enter")
        page.wait_until_written()
    assert len(page.written()) == 3003
    assert page.tab.evaluate("document.activeElement.closest('#next') !== null")
    hidden = "(box => box.scrollHeight - box.clientHeight - box.scrollTop)(document.getElementById('written'))"
    assert page.tab.evaluate("document.getElementById('written').scrollTop") > 0
    assert page.tab.evaluate(hidden) < 2
    page.close()


def test_the_bytes_of_a_character_go_together(tmp_path: Path, charrnn: Command, browser: Any) -> None:
    page = Page(browser, make(charrnn, tmp_path, model_of("rnn", 1, Vocabulary.bytes())))
    page.tab.evaluate("goOn(encoded('a\u6f22'))")
    page.wait_until_written()
    for key, text in (("b", "a\u6f22b"), ("Backspace", "a\u6f22"), ("Backspace", "a"), ("\U0001e900", "a\U0001e900")):
        page.tab.locator("#written").dispatch_event("keydown", {"key": key})
        page.wait_until_written()
        assert page.written() == text
    assert page.tab.locator("#earlier button").count() == 1  # what was there first
    assert "5 bytes" in page.tab.inner_text("#play-status")
    page.close()


def test_a_text_is_coloured_by_its_surprise_and_by_a_cell(tmp_path: Path, charrnn: Command, browser: Any) -> None:
    model = model_of("lstm", 2, ASCII)
    page = Page(browser, make(charrnn, tmp_path, model))
    from playwright.sync_api import expect

    text = "It was \u201cnot\u201d a dark night.\nNo.\n"
    page.read(text)
    plain = text.replace("\u201c", '"').replace("\u201d", '"')
    ids = ASCII.encode(plain)
    network = Network(model.config, half_width(model))
    start = np.concatenate([[ASCII.id_of("\n"), ASCII.boundary], ids])
    logits, _ = network.forward(start[None], network.zero_state())
    logits = logits[0, 1:-1].astype(np.float64)
    nats = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(ids)), ids]
    spans = page.tab.locator("#painted span")
    assert spans.count() == len(ids)
    classes = [spans.nth(n).get_attribute("class").split()[0] for n in range(len(ids))]
    assert classes == [f"s{min(6, int(surprise))}" for surprise in nats]

    # The place of the keyboard, and what was expected there.
    page.tab.locator("#painted").focus()
    page.tab.keyboard.press("End")
    page.tab.keyboard.press("ArrowLeft")
    assert page.tab.inner_text("#place-title").startswith(f".: {nats[-2]:.2f} nats")
    best = np.argsort(-logits[-2], kind="stable")[:5]
    shown = {" ": "space", "\n": "newline", "\t": "tab"}
    names = [*ASCII.characters, "unknown", "end of text"]
    assert page.tab.locator("#place kbd").all_inner_texts() == [shown.get(names[id], names[id]) for id in best]
    spans.nth(3).hover()
    assert page.tab.inner_text("#place-title").startswith(f"w: {nats[3]:.2f} nats")

    # A file in place of the field.
    (tmp_path / "file.txt").write_text("From a file.\n")
    page.tab.set_input_files("#file", tmp_path / "file.txt")
    expect(page.tab.locator("#look-status")).to_contain_text("13 characters")
    assert page.tab.input_value("#source") == "From a file.\n"
    page.read(text)

    # By a cell: its memory, blue below and red above zero.
    page.tab.select_option("#colour", "cell")
    page.tab.fill("#layer", "2")
    page.tab.fill("#cell", "5")
    memories: list[Any] = []
    network.forward(start[None], network.zero_state(), memories)
    memory = memories[1][2:, 4, 0]
    for n, value in enumerate(memory):
        level = int(spans.nth(n).get_attribute("class").split()[0][1:])
        assert abs(level - 4 - 4 * np.tanh(value) / np.tanh(1)) < 0.6
    page.close()


def test_cells_of_the_starter_are_found_and_colour_the_text(tmp_path: Path, charrnn: Command, browser: Any) -> None:
    """On real prose, at least five properties have a cell that keeps track of them."""
    tales = (PROJECT / "data/tales.txt").read_text(encoding="utf-8")
    (tmp_path / "some.txt").write_text(tales[:40_000], encoding="utf-8")
    result = charrnn("page", "starter", "--out", "x.html", "--text", "some.txt")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "x.html").stat().st_size < 10_000_000
    page = Page(browser, tmp_path / "x.html")
    found = page.tab.locator("#neurons button")
    assert found.count() >= 5
    start = tales.index("She let out a long breath")
    page.read(tales[start : start + 750])  # speech, and two lines without any
    quotes = found.filter(has_text="inside quotes")
    quotes.focus()
    page.tab.keyboard.press("Enter")
    from playwright.sync_api import expect

    expect(page.tab.locator("#look-status")).to_contain_text("nats per character", timeout=60_000)
    assert page.tab.input_value("#colour") == "cell"
    named = f"inside quotes: layer {page.tab.input_value('#layer')}, cell {page.tab.input_value('#cell')}, "
    assert quotes.inner_text().startswith(named)
    classes = {name.split()[0] for name in page.tab.evaluate("[...$('painted').children].map((e) => e.className)")}
    assert {"c0", "c8"} <= classes <= {f"c{level}" for level in range(9)}
    page.close()


def test_nothing_becomes_markup(tmp_path: Path, charrnn: Command, browser: Any) -> None:
    characters = "\n<script>/!- \u2028\u2029\x01\x7f&\"'{}model"
    characters = "".join(dict.fromkeys(characters))
    model = model_of("lstm", 1, Vocabulary("text", characters))
    name = "<img src=x onerror=alert(1)>"
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
    (tmp_path / "checkpoints" / name / "best.safetensors").write_bytes(checkpoint.to_bytes(model))
    (tmp_path / "x.txt").write_text("</script><script>alert(1)</script>{model}<!-- " * 40)
    result = charrnn("page", name, "--out", "x.html", "--text", "x.txt")
    assert result.returncode == 0, result.stderr
    page = Page(browser, tmp_path / "x.html")
    assert page.tab.inner_text("h1") == name
    assert page.tab.locator("img").count() == 0
    page.write(prime="</script><script>alert(1)</script>", length=100)
    assert page.written().startswith("</script><script>lert</script>")  # what its vocabulary has
    page.read("<script>/")
    assert "".join(page.tab.locator("#painted span").all_inner_texts()) == "<script>/"
    page.close()


def contrast_faults(page: Page) -> list[str]:
    """The elements whose text is too faint for the level AA of WCAG 2.2."""
    return list(
        page.tab.evaluate(
            """() => {
        const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
        const light = (colour) => {
            const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
            const [r, g, b] = numbers(colour).map((c) => linear(c / 255));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const behind = (element) => {
            for (let at = element; at; at = at.parentElement) {
                const colour = getComputedStyle(at).backgroundColor;
                if ((numbers(colour)[3] ?? 1) > 0) return colour;
            }
            return "rgb(255, 255, 255)";
        };
        const faults = [];
        for (const element of document.body.querySelectorAll("*:not(script):not(option)")) {
            if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
            const style = getComputedStyle(element);
            if (element.disabled || !element.checkVisibility()) continue;
            const backs = [behind(element)];
            const bar = element.closest(".bar");
            if (bar) backs.push(getComputedStyle(bar).backgroundImage.match(/rgb\\([^)]*\\)/)[0]);
            for (const back of backs) {
                const [a, b] = [light(style.color), light(back)];
                const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
                const least = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
                if (ratio < least) faults.push(`${element.outerHTML.slice(0, 80)}: ${ratio}`);
            }
        }
        return faults;
    }"""
        )
    )


UNNAMED = """() => {
    const isNamed = (e) => e.labels?.length || e.ariaLabel || e.getAttribute("aria-labelledby") || e.textContent.trim();
    const elements = document.querySelectorAll("input, textarea, select, button, [role=group], section, nav, svg");
    return [...elements].filter((e) => !isNamed(e)).map((e) => e.outerHTML);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_and_heard_on_a_phone_and_on_a_desktop(
    tmp_path: Path, charrnn: Command, browser: Any, scheme: str
) -> None:
    path = make(charrnn, tmp_path, model_of("coupled", 1, Vocabulary.ascii()))
    for width in (360, 1200):
        page = Page(browser, path, color_scheme=scheme, viewport={"width": width, "height": 800})
        page.read(TEXT[:300])
        assert contrast_faults(page) == []
        page.tab.select_option("#colour", "cell")
        assert contrast_faults(page) == []
        assert page.tab.evaluate("document.documentElement.scrollWidth") <= width
        assert page.tab.evaluate(UNNAMED) == []
        assert page.tab.locator("main, header, footer, nav").count() == 4
        page.close()


# --- cells that keep track of something ------------------------------------------------------------


def test_a_cell_that_keeps_track_is_found_and_its_figure_is_of_the_other_half() -> None:
    random = np.random.default_rng(0)
    holds = random.random(2000) < 0.3
    levels = random.integers(0, 256, (20, 2000)).astype(np.uint8)
    levels[7] = np.where(holds, 60, 200) + random.integers(-50, 50, 2000)
    cell, accuracy = best_cell(levels, holds)
    assert cell == 7
    assert accuracy > 0.99
    levels[7, 1000:] = random.integers(0, 256, 1000)  # it did so only in the first half
    cell, accuracy = best_cell(levels, holds)
    assert cell == 7
    assert abs(accuracy - 0.5) < 0.06
    numbers = random.normal(size=2000).astype(np.float32)
    levels[3] = np.clip(128 - 40 * numbers, 0, 255)
    cell, r = best_cell(levels, numbers)
    assert cell == 3
    assert r == pytest.approx(1, abs=0.01)  # the sign is part of the fit


def test_features_are_what_they_are_called() -> None:
    text = 'He said: "No (or so)."\n    if x: # note\nTHE END.  A'
    assert set(np.flatnonzero(FEATURES["inside quotes"](text))) == set(range(9, 21))
    assert set(np.flatnonzero(FEATURES["inside brackets"](text))) == set(range(13, 19))
    assert list(FEATURES["place in the line"](text)[20:25]) == [21, 22, 0, 1, 2]
    assert list(FEATURES["indentation"](text)[22:30]) == [0, 1, 2, 3, 4, 4, 4, 4]
    assert set(np.flatnonzero(FEATURES["in a comment"](text))) == set(range(33, 39))
    assert list(FEATURES["place in the word"](text)[:5]) == [1, 2, 0, 1, 2]
    for name, feature in FEATURES.items():
        values = feature(text)
        assert values.shape == (len(text),), name
        assert np.array_equal(feature(text[:30])[:20], values[:20]), name  # what comes later does not matter


def test_an_untrained_network_keeps_track_of_nothing() -> None:
    config = model_of("coupled", 2, Vocabulary.ascii(), units=64).config
    ids = Vocabulary.ascii().encode(TEXT)
    for seed in (3, 4, 5):
        assert find_neurons(Network(config, untrained_weights(config, seed)), ids, TEXT) == []


# --- the command -----------------------------------------------------------------------------------


def test_what_is_wrong_is_one_line_and_nothing_is_overwritten(tmp_path: Path, charrnn: Command) -> None:
    (tmp_path / "m.safetensors").write_bytes(checkpoint.to_bytes(model_of("rnn", 1, Vocabulary("text", "\nabc"))))
    (tmp_path / "out.html").write_text("old")
    (tmp_path / "digits.txt").write_text("12345")
    for options, message in (
        (("--text", "digits.txt"), "digits.txt: has no character that the model can read"),
        (("--text", "gone.txt"), "gone.txt: no such file"),
        (("--out", "no/x.html"), "no: there is no such folder to write the page to"),
    ):
        result = charrnn("page", "m.safetensors", "--out", "out.html", *options)
        assert result.returncode != 0
        assert message in result.stderr
        assert result.stderr.splitlines()[-1].startswith("Error: ")
        assert (tmp_path / "out.html").read_text() == "old"


def test_a_damaged_history_and_a_closed_stdout_are_no_obstacle(tmp_path: Path) -> None:
    run = Run(tmp_path / "checkpoints/x")
    run.folder.mkdir(parents=True)
    run.best.write_bytes(checkpoint.to_bytes(model_of("lstm", 1, Vocabulary.ascii())))
    run.history.write_text("nonsense")
    result = subprocess.run(
        f"'{sys.executable}' -m charrnn page x --out x.html >&-",
        shell=True, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment(), check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stderr.endswith("; the page has no loss curve\n")
    assert (tmp_path / "x.html").exists()


def test_the_page_is_small_and_its_data_is_what_the_checkpoint_has(tmp_path: Path, charrnn: Command) -> None:
    vocabulary = Vocabulary.ascii()
    model = model_of("lstm", 1, vocabulary, units=512)
    page = make(charrnn, tmp_path, model).read_text(encoding="utf-8")
    assert len(page) < 5_000_000
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    data = json.loads(re.search(r'<script type="application/json" id="model">(.*?)</script>', page)[1])
    assert data["vocabulary"]["characters"] == vocabulary.characters
    assert sum(size for _, size in data["tensors"]) == sum(weight.size for weight in model.weights.values())
