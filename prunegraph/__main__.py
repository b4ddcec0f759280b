"""`python -m prunegraph` is the command `prunegraph`."""

from prunegraph.cli import main

if __name__ == "__main__":
    main()
