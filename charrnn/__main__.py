"""`python -m charrnn` is the same as `charrnn`."""

from charrnn.cli import main

if __name__ == "__main__":
    main()
