"""The one exception type that is meant to be read by the person at the keyboard."""


class MixreorgError(Exception):
    """A problem with what the user gave: the message names the input and the remedy.

    The command line prints the message alone and exits with code 2. Every other exception is a defect of
    the package and keeps its traceback.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out; torch and the runtimes of exports have no type for it."""
    told = str(error).lower()
    return isinstance(error, MemoryError) or "allocate memory" in told or "out of memory" in told
