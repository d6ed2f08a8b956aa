"""How caption pairs are named: paths, URLs, folders, braces and globs, expanded to single files."""

import re
from pathlib import Path

from mixreorg.data.captions_file import CAPTIONS_SUFFIXES
from mixreorg.data.remote import list_shards, printable
from mixreorg.errors import MixreorgError
from mixreorg.files import exists

# Its brackets are no pattern.
_IPV6_HOST = re.compile(r"(?<=://)(?:[^/@]*@)?\[[0-9a-fA-F.]*:[0-9a-fA-F:.]*\]")


def expand(spec: str) -> list[Path | str]:
    """The shards and captions files that a spec names, in order: local ones as paths, remote ones as URLs.

    Args:
        spec: as for :func:`~mixreorg.data.pairs.open_pairs`.

    Raises:
        MixreorgError: something that is named does not exist, or is neither a shard nor a captions file. Whether a
            remote shard that is named in full exists is not asked.
    """
    if not spec.strip():
        raise MixreorgError(f"{spec!r} names no data; name shards, a folder or a captions file")
    if spec.startswith("pipe:"):
        raise MixreorgError(f"{spec}: commands are not run; name the shards by path or URL")
    if "://" in spec:
        return list(_expand_url(spec))
    try:
        path = Path(spec).expanduser()
    except RuntimeError as error:
        raise MixreorgError(f"{spec}: {error}; write the whole path") from error
    if not exists(path):
        files = _expand_pattern(str(path))
    elif path.is_dir():
        files = _expand_folder(path)
    else:
        files = [path]
    for file in files:
        if file.suffix not in (".tar", *CAPTIONS_SUFFIXES) or not file.is_file():
            raise MixreorgError(
                f"{file} is neither a shard (.tar) nor a captions file ({', '.join(CAPTIONS_SUFFIXES)})"
            )
    return list(files)


def _expand_url(spec: str) -> list[str]:
    urls: list[str] = []
    for url in expand_braces(spec):
        found = list_shards(url) if re.search(r"[*[]", _IPV6_HOST.sub("", url)) else [url]
        if not found:
            raise MixreorgError(f"missing: {printable(url)}; nothing matches it, so correct the URL")
        urls.extend(found)
    for url in urls:
        if not printable(url).endswith(".tar"):
            raise MixreorgError(f"{printable(url)} is not a shard (.tar); only shards can be read from URLs")
    return urls


def _expand_folder(folder: Path) -> list[Path]:
    try:
        captions = [file for suffix in CAPTIONS_SUFFIXES if (file := folder / f"captions{suffix}").is_file()]
        # By name, not by a pattern: the folder's own name may hold pattern characters.
        shards = sorted(file for file in folder.iterdir() if file.suffix == ".tar" and not file.name.startswith("."))
    except OSError as error:
        raise MixreorgError(
            f"cannot list the folder {folder}: {error.strerror or error}; make it readable or name its files"
        ) from error
    if len(captions) > 1 or (captions and shards):
        raise MixreorgError(
            f"{folder} holds more than one source of captions; name the one to read: "
            + ", ".join(str(file) for file in [*captions, *shards[:1]])
        )
    if not (captions or shards):
        raise MixreorgError(f"{folder} holds neither shards (*.tar) nor captions.csv, captions.tsv or captions.jsonl")
    return captions or shards


def _expand_pattern(pattern: str) -> list[Path]:
    files: list[Path] = []
    missing: list[str] = []
    for name in expand_braces(pattern):
        found = _glob(name)
        if not found:
            missing.append(name)
        files.extend(found)
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3:,} more" if len(missing) > 3 else "")
        raise MixreorgError(
            f"missing: {shown}; every shard that is named must exist, so correct the path or restore it"
        )
    return files


def _glob(pattern: str) -> list[Path]:
    """Files that match, sorted; without names that begin with a dot, which belong to systems and writers."""
    path = Path(pattern)
    try:
        matches = list(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    except OSError:  # no file has such a name
        return []
    except ValueError as error:
        raise MixreorgError(f"{pattern} is no pattern of files ({error}); write ** only as a whole folder") from error
    return sorted(match for match in matches if not match.name.startswith("."))


def expand_braces(pattern: str) -> list[str]:
    """Names that a pattern with braces stands for; the pattern itself where it has none.

    Raises:
        MixreorgError: braces that do not match.
    """
    if "{" not in pattern:
        return [pattern]
    try:
        from braceexpand import braceexpand
    except ImportError as error:
        raise MixreorgError(f"{pattern}: braces need the training extra: pip install 'mixreorg[train]'") from error
    try:
        return list(braceexpand(pattern))
    except ValueError as error:
        raise MixreorgError(f"{pattern}: braces do not match; write them as {{00000..00041}} or {{a,b}}") from error
