"""``mixreorg demo``."""


def demo() -> None:
    """Placeholder until run.py."""
