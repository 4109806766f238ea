"""charrnn: train a character-level language model on any text file and write new text from it.

model = charrnn.load("checkpoints/tales")
for text in model.generate("The ", temperature=0.8, seed=1):
    print(text, end="", flush=True)
print(model.score("The bell rang.").nats_per_character)
"""

from __future__ import annotations

TYPE_CHECKING = False  # like typing.TYPE_CHECKING; importing typing takes longer than everything else here
if TYPE_CHECKING:
    import os

    from charrnn.language_model import LanguageModel

__all__ = ["CharrnnError", "__version__", "load"]

__version__ = "0.1.0"


class CharrnnError(Exception):
    """An error for the user, in one line: what is wrong, where, and what to do.

    Attributes:
        exit_code: 2 for incorrect usage, 3 if another worker of a training has ended, 1 for any other failure.
    """

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def load(where: str | os.PathLike[str] | None = None) -> LanguageModel:
    """Load a trained model for generating and scoring text.

    Args:
        where: a run's name or folder, a checkpoint file, or "starter" for the model that comes with charrnn; None
            loads the most recently trained run or, if there is none, the starter. charrnn looks for names in
            `checkpoints`, or in the folder that the environment variable CHARRNN_CHECKPOINTS_DIR names.

    Raises:
        CharrnnError: there is no such checkpoint, or it cannot be read.
    """
    from charrnn.language_model import LanguageModel  # imports NumPy, which `import charrnn` avoids

    return LanguageModel.load(where)
