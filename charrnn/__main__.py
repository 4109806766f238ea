"""`python -m charrnn` is the same as `charrnn`."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # the working folder: a random.py there would shadow Python's own

from charrnn.cli.main import main

if __name__ == "__main__":
    main()
