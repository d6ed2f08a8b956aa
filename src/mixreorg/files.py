"""Writing files so that a reader never sees half of one: temporary file beside the target, then replace."""

import contextlib
import errno
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixreorg.errors import MixreorgError

_UMASK_LOCK = threading.Lock()


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file in ``path``'s folder, then move it over ``path`` in one step.

    The temporary name keeps the suffix of ``path``, because some writers choose their format by it. Folders that were
    made for it go again where it fails.

    Raises:
        MixreorgError: the folder cannot be created or the file cannot be written (full disk, no permission).
    """
    new: list[Path] = []
    temporary = None
    try:
        new = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(descriptor)
        temporary = Path(name)
        write(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise MixreorgError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        _remove_empty(new)


def require_writable(path: Path) -> None:
    """Find out whether a file can be written, before the work whose result it is to hold; an earlier file stays.

    Raises:
        MixreorgError: its folder cannot be created or written, or the path is a folder.
    """
    new: list[Path] = []
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        new = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
        if new:
            path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise MixreorgError(f"cannot write {path}: {error.strerror or error}; name another place") from error
    finally:
        _remove_empty(new)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first, as far as nobody has put anything into them."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


@contextlib.contextmanager
def folder_in_one_step(out: Path) -> Iterator[Path]:
    """An empty folder to fill; it becomes ``out`` when the block ends well, and is deleted when it does not.

    It lies beside ``out``, on the same disk. An earlier ``out`` is replaced: who calls has asked whether it may be.
    Folders that were made for it go again where it fails.

    Raises:
        MixreorgError: the folder cannot be made or filled (full disk, no permission), also by an ``OSError`` of the
            block; or it cannot be replaced.
    """
    require_replaceable(out)
    new: list[Path] = []
    private = None
    try:
        new = [folder for folder in (out.parent, *out.parent.parents) if not folder.exists()]
        out.parent.mkdir(parents=True, exist_ok=True)
        private = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
        # mkdtemp's own folder is closed to others; one made inside it has ordinary permissions.
        folder = private / "finished"
        folder.mkdir()
        try:
            yield folder
        except MixreorgError as error:
            # Nobody knows the folder by its temporary name.
            if str(folder) in str(error):
                raise MixreorgError(str(error).replace(str(folder), str(out))) from error
            raise
        _move_into_place(folder, out)
    except OSError as error:
        raise MixreorgError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        if private is not None:
            shutil.rmtree(private, ignore_errors=True)
        _remove_empty(new)


def require_replaceable(folder: Path) -> None:
    """Find out whether another folder can take a folder's place, before it is made; one that is not there is fine.

    Raises:
        MixreorgError: it is the working directory, which the shell would go on to hold when it is deleted, or a mount
            point, which stays where it is.
    """
    try:
        is_here = folder.samefile(".")
    except OSError:  # not there, or closed: writing tells
        return
    # Not Path.is_mount: that of Python 3.11 knows none on Windows, and takes a link to another disk for one.
    reasons = {"it is the folder that you are in": is_here, "it is a mount point": os.path.ismount(folder)}
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    if reason is not None:
        raise MixreorgError(f"{folder} cannot be replaced as a whole ({reason}); name a new folder inside it")


def _move_into_place(finished: Path, out: Path) -> None:
    """Rename ``finished`` to ``out``; an earlier ``out`` goes to the temporary folder, which is deleted next."""
    if not out.exists():
        finished.rename(out)
        return
    old = finished.parent / "replaced"
    out.rename(old)
    try:
        finished.rename(out)
    except OSError:
        old.rename(out)
        raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    write_atomically(path, lambda temporary: _write(temporary, text))


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files: none is put in place before all are on the disk, and the last one comes last."""
    *others, (path, content) = contents.items()

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)
        if others:
            write_together(dict(others))

    write_atomically(path, write)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all. NaN becomes null: JSON has no NaN."""
    write_text(path, json.dumps(_without_nan(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, make_object: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Read a JSON file.

    Args:
        path: of the file.
        make_object: of the names and values of each object, in order; it may refuse them with ``ValueError``.

    Raises:
        MixreorgError: the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=make_object)
    except OSError as error:
        raise MixreorgError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # also of text that is not UTF-8, or of too many brackets
        raise MixreorgError(f"{path} is not valid JSON ({error}); restore it or make it again") from error


def exists(path: Path) -> bool:
    """Whether there is a file or folder at a path; no for what cannot be one, such as a name that is too long."""
    try:
        return path.exists()
    except OSError:
        return False


def sync(path: Path) -> None:
    """Bring a file's content, or the names in a folder, to the disk."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return  # Windows keeps names safe by itself and opens no folders.
    # Windows brings nothing to the disk that is open for reading alone; no system opens folders otherwise.
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _umask() -> int:
    # The mask can only be read by setting it: of two threads at once, one would read the other's 0 and keep it.
    with _UMASK_LOCK:
        mask = os.umask(0)
        os.umask(mask)
    return mask


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value
