"""``python -m mixreorg``: the command line."""

from mixreorg.cli.main import main

if __name__ == "__main__":
    main()
