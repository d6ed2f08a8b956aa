"""The one exception type that is meant to be read by the person at the keyboard."""


class MixreorgError(Exception):
    """A problem with what the user gave: the message names the input and the remedy.

    The command line prints the message alone and exits with code 2. Every other exception is a defect of
    the package and keeps its traceback.
    """
