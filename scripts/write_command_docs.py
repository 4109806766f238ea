"""Write docs/commands.md from the commands' own help.

python scripts/write_command_docs.py
python scripts/write_command_docs.py --check     # fail if it is stale
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from charrnn.cli.main import cli

TARGET = Path(__file__).parent.parent / "docs" / "commands.md"
HEAD = """# The commands

What `charrnn --help` and the commands' own `--help` print. Written by `python scripts/write_command_docs.py`.

What a command makes (a sample's text, a picture's path) goes to stdout, everything else to stderr. Exit codes:

| code | meaning |
|---|---|
| 0 | done (also when a pipe's reader had enough, and when a run was finished already) |
| 1 | it failed; one line says what, where, and what to do |
| 2 | a wrong call: an option, file, run or checkpoint that is not there, a value out of its range |
| 130 | stopped by Ctrl-C; training under way was saved (a second Ctrl-C does not wait for that) |
| 143 | stopped by SIGTERM; training under way was saved |
"""


def render() -> str:
    """The page."""
    context = click.Context(cli, info_name="charrnn", **cli.context_settings)
    parts = [HEAD]
    pages = [("charrnn", cli, context)]
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        pages.append((f"charrnn {name}", command, click.Context(command, info_name=name, parent=context)))
    for title, command, page_context in pages:
        page_context.max_content_width = 80
        parts.append(f"\n## {title}\n\n```\n{command.get_help(page_context)}\n```\n")
    return "".join(parts)


@click.command(help=__doc__)
@click.option("--check", is_flag=True, help="Write nothing; fail if the page is stale.")
def main(check: bool) -> None:
    """Write or check the page."""
    page = render()
    if not check:
        TARGET.write_text(page, encoding="utf-8")
    elif not TARGET.exists() or TARGET.read_text(encoding="utf-8") != page:
        sys.exit(f"{TARGET} is stale: run python scripts/write_command_docs.py")


if __name__ == "__main__":
    main()
