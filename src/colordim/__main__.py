"""``python -m colordim``: the command line."""

from colordim.cli import main

if __name__ == "__main__":
    main()
