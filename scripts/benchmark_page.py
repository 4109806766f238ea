"""Measure the page of a model: its size, how long it takes to make, and how fast it writes in headless Chromium.

    python scripts/benchmark_page.py text.txt

For an untrained LSTM of 1x512 and for the starter, with the first 100,000 characters of the text. Nothing else should
run meanwhile.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from _machine import machine, untrained
from playwright.sync_api import Page, expect, sync_playwright

from charrnn.runs.checkpoint import to_bytes

LENGTH = 3000  # characters to write
# The longest time between two calls that are asked for every 10 ms: what a click would wait.
LONGEST_WAIT = """() => new Promise((done) => {
    let longest = 0, last = performance.now(), calls = 0;
    const next = () => {
        longest = Math.max(longest, performance.now() - last);
        last = performance.now();
        if (++calls < 60) setTimeout(next, 10); else done(longest);
    };
    next();
})"""


def write(page: Page, path: Path) -> tuple[str, float]:
    """Let a page write; return what it says of its speed, and its longest wait meanwhile in milliseconds."""
    page.goto(path.as_uri())
    expect(page.locator("#more")).to_be_enabled(timeout=60_000)
    page.fill("#length", str(LENGTH))
    page.click("#write")
    page.wait_for_timeout(300)
    wait = float(page.evaluate(LONGEST_WAIT))
    expect(page.locator("#more")).to_be_enabled(timeout=60_000)
    return page.inner_text("#play-status"), wait


@click.command(help=__doc__)
@click.argument("text", type=click.Path(exists=True, path_type=Path))
def main(text: Path) -> None:
    """Measure and print."""
    click.echo(machine())
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        (folder / "1x512").write_bytes(to_bytes(untrained(1, 512)))
        (folder / "text.txt").write_text(text.read_text(encoding="utf-8")[:100_000], encoding="utf-8")
        for model in ("./1x512", "starter"):
            path = folder / f"{Path(model).name}.html"
            command = [sys.executable, "-m", "charrnn", "page", model, "--out", path, "--text", "text.txt"]
            start = time.perf_counter()
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - start
            said, wait = write(browser.new_page(), path)
            click.echo(f"{model}: made in {seconds:.1f} s, {path.stat().st_size:,} bytes; {said}; waits {wait:.0f} ms")


if __name__ == "__main__":
    main()
