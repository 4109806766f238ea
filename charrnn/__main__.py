"""`python -m charrnn` is the same as `charrnn`."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # the working folder, where a random.py would be taken for Python's own

from charrnn.cli.main import main

if __name__ == "__main__":
    main()
