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
HEAD = r"""# The commands

The output of `charrnn --help` and of each command's `--help`, written by `python scripts/write_command_docs.py`.

Results (the text of a sample, the path of a picture) go to stdout, everything else to stderr. Exit codes:

| code | meaning |
|---|---|
| 0 | success; also if the reader of a pipe stopped early, or if the run was already finished |
| 1 | failure; one line says what is wrong, where, and what to do; `--debug` adds the traceback |
| 2 | wrong call: a missing option, file, run or checkpoint, or a value out of range |
| 3 | another worker of a training [on several machines](train.md#several-processes-machines-or-gpus) has ended |
| 130 | stopped by Ctrl-C; charrnn has saved a training that had begun (a second Ctrl-C does not wait for that) |
| 129, 143 | stopped by a terminal that was closed, or by SIGTERM; the same |

`python -m charrnn` is the same as `charrnn`. `NO_COLOR=1` turns colors off. For completion in the shell:

| shell | line | in |
|---|---|---|
| bash | `eval "$(_CHARRNN_COMPLETE=bash_source charrnn)"` | `~/.bashrc` |
| zsh | `eval "$(_CHARRNN_COMPLETE=zsh_source charrnn)"` | `~/.zshrc` |
| fish | `_CHARRNN_COMPLETE=fish_source charrnn \| source` | `config.fish` |
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
        page_context.terminal_width = 78  # whatever the terminal's is
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
