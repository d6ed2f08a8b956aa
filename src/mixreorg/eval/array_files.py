"""Files of named arrays (``.npz``), written whole and read without trust."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mixreorg.errors import MixreorgError
from mixreorg.files import write_atomically

Arrays = dict[str, npt.NDArray[Any]]


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write a compressed file, whole or not at all."""
    values: dict[str, Any] = dict(arrays)
    write_atomically(path, lambda temporary: np.savez_compressed(temporary, **values))


def read_arrays(path: Path) -> Arrays:
    """Read a file from :func:`write_arrays`; objects, which could hold code, are refused.

    Raises:
        MixreorgError: missing, damaged, or another kind of file.
    """
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise MixreorgError(f"{path} is no file of named arrays")
            with content:
                return dict(content)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise MixreorgError(f"{path} is missing or damaged ({error})") from error
