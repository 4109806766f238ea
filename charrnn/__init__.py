"""charrnn: train a character-level language model on any text file and write new text from it."""

__version__ = "0.1.0"


class CharrnnError(Exception):
    """What a user has to know, in one line: what is wrong, where, and what to do.

    Attributes:
        exit_code: 2 for a wrong call, 1 for a failure.
    """

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
