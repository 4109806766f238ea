"""A run's loss by nanoGPT's protocol, beside the one pass that charrnn train ends with.

    python scripts/nanogpt_protocol.py tinyshakespeare.txt checkpoints/tinyshakespeare

Windows of 256 characters side by side over the validation part, each read from the zero state, the mean
over all positions; nats per character. nanoGPT samples such windows at random, which estimates the same.
"""

from __future__ import annotations

import click
import numpy as np

from charrnn import CharrnnError
from charrnn.network.network import Network
from charrnn.network.scoring import log_probabilities
from charrnn.runs import checkpoint
from charrnn.runs.folder import DEFAULT_FOLDER, find_checkpoint
from charrnn.text.corpus import Reading, read_corpus
from charrnn.text.reading import open_files

WINDOW = 256


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n"))
@click.argument("text", type=click.Path(exists=True, dir_okay=False))
@click.argument("checkpoints", nargs=-1, required=True, metavar="CHECKPOINT...")
def main(text: str, checkpoints: tuple[str, ...]) -> None:
    """Score and print."""
    try:
        for where in checkpoints:
            trained = checkpoint.load(find_checkpoint(where, DEFAULT_FOLDER))
            settings = trained.settings
            how = Reading(settings.vocabulary, settings.encoding, settings.errors)
            corpus = read_corpus(open_files([text]), how)
            if checkpoint.CorpusIdentity.of(corpus) != trained.corpus:
                raise click.ClickException(f"{where}: trained on another text than {text}")
            network = Network(trained.config, trained.weights)
            part = corpus.ids[corpus.validation_start :]
            starts = range(0, len(part) - WINDOW, WINDOW)
            scored = (log_probabilities(network, part[start : start + WINDOW + 1], 1) for start in starts)
            mean = -sum(map(np.sum, scored)) / max(1, len(starts) * WINDOW)
            one_pass = trained.progress.final_loss
            click.echo(
                f"{where}: one pass {'not made' if one_pass is None else f'{one_pass:.4f}'}, "
                f"nanoGPT's protocol {mean:.4f}"
            )
    except CharrnnError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
