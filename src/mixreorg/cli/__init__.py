"""The command line: one command per file, mounted in ``main``."""
