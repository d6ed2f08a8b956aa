"""Models on the Hugging Face hub: fetched once into its cache, and put there."""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mixreorg.bundled import BUNDLED, bundled_folder
from mixreorg.errors import MixreorgError
from mixreorg.files import exists, read_json
from mixreorg.interop.model_card import CARD
from mixreorg.models.folder import FORMAT
from mixreorg.segment.calibration import CALIBRATION_FILE

ALIASES = {
    "groupvit-gcc-yfcc": "nvidia/groupvit-gcc-yfcc",
    "groupvit-gcc-redcaps": "nvidia/groupvit-gcc-redcaps",
}
"""Short names of the published GroupViT models."""

_NAME = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_OPTIONAL = ("tokenizer.json", "merges.txt", "vocab.json", CALIBRATION_FILE)
_PATIENCE = 5.0
"""Seconds to wait for the hub's first answer."""
_Result = TypeVar("_Result")


def locate(source: str | Path) -> Path:
    """The file or folder that a model's name stands for; a name on the hub is fetched into the hub's cache.

    A name of :data:`~mixreorg.bundled.BUNDLED` is the model that comes with the package.
    A name is taken to be one on the hub when it is an alias or has the form ``OWNER/NAME`` or ``OWNER/NAME@REVISION``,
    and neither that path nor a folder ``OWNER`` exists. A ``Path`` is always a path. ``HF_HOME``, ``HF_HUB_OFFLINE``
    and the token of ``hf auth login`` act as in every program that uses the hub.

    Args:
        source: a path, the name of a bundled model, an alias (:data:`ALIASES`) or a name on the hub.

    Returns:
        A path, which exists if the name was on the hub.

    Raises:
        MixreorgError: no such model on the hub, no network and not in the cache, another kind of model, or a bundled
            model that this installation lacks.
    """
    path = Path(source).expanduser()
    if source in BUNDLED and not exists(path):
        return bundled_folder(str(source))
    name = ALIASES.get(str(source), str(source))
    match = _NAME.fullmatch(name)
    if (
        match is None
        or isinstance(source, Path)
        or exists(path)
        or (str(source) not in ALIASES and exists(path.parent))
    ):
        return path
    return _fetch(match["repo"], match["revision"], str(source))


def push_to_hub(folder: str | Path, repo: str, *, private: bool = False, message: str | None = None) -> str:
    """Put a finished model folder on the hub; the repository is made where there is none.

    Args:
        folder: as :func:`~mixreorg.interop.convert.convert_model` writes it.
        repo: ``OWNER/NAME``.
        private: of a new repository.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        MixreorgError: no folder, not logged in, no permission, or no network.
    """
    if not (Path(folder) / "config.json").is_file():
        # Asked first, so that no empty repository is made.
        raise MixreorgError(f"{folder} is not a model folder to put on the hub: it has no config.json")
    library = _library(f"to put a model on the hub as {repo}")

    def push() -> str:
        api = library.HfApi(library_name="mixreorg")
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=message or "Model written by mixreorg"
        )
        return str(commit.commit_url)

    return _explained(push, f"cannot put {folder} on the hub as {repo}", "log in with `hf auth login`")


def _fetch(repo: str, revision: str | None, source: str) -> Path:
    library = _library(f"there is no file or folder {source}; to fetch the model {repo} from the Hugging Face hub")
    what = f"cannot fetch {repo} from the Hugging Face hub, and there is no file or folder {source}"

    def fetch() -> Path:
        _require_hub(library, repo, revision, what)
        config = _download(library, repo, "config.json", revision)
        # Whatever happens on the hub meanwhile, all files are those of one commit.
        commit = config.parent.name
        _check_kind(config, repo)
        if not _fetch_optional(library, repo, _WEIGHTS[0], commit, what):
            _download(library, repo, _WEIGHTS[1], commit)
        for file in _OPTIONAL:
            _fetch_optional(library, repo, file, commit, what)
        # Nothing but the licence of what is saved depends on it: no reason to refuse a model that is in the cache.
        with contextlib.suppress(MixreorgError):
            _fetch_optional(library, repo, CARD, commit, what)
        return config.parent

    return _explained(fetch, what, "check the name, or log in with `hf auth login` if it is private")


def _download(library: Any, repo: str, file: str, revision: str | None) -> Path:
    return Path(library.hf_hub_download(repo, file, revision=revision, library_name="mixreorg"))


def _fetch_optional(library: Any, repo: str, file: str, commit: str, what: str) -> bool:
    """Fetch a file that a model may lack; whether it has one.

    Raises:
        MixreorgError: the hub fails. A model must not lose a file, such as its calibration, because of that.
    """
    cached = library.try_to_load_from_cache(repo, file, revision=commit)
    if cached is not None:
        # Its path, or the library's mark for a file that this commit lacks: the hub has said so before.
        return isinstance(cached, str)
    try:
        _download(library, repo, file, commit)
    except library.errors.LocalEntryNotFoundError as error:
        # Not the hub's word that there is none, but what the library makes of failures.
        if not isinstance(error.__cause__, library.errors.OfflineModeIsEnabled):
            reason = _first_line(error.__cause__ or error)
            raise MixreorgError(
                f"{what}: the hub neither gave its {file} nor said that it has none ({reason}); try again, or set "
                "HF_HUB_OFFLINE=1 to go by what is in the cache"
            ) from error
        return False
    except library.errors.EntryNotFoundError:
        return False
    return True


def _require_hub(library: Any, repo: str, revision: str | None, what: str) -> None:
    """Ask the hub once before a first download: the library itself would try for most of a minute.

    Raises:
        MixreorgError: nobody answers. Any answer will do, for the download itself explains it or tries again.
    """
    if isinstance(library.try_to_load_from_cache(repo, "config.json", revision=revision), str):
        return
    try:
        library.get_hf_file_metadata(library.hf_hub_url(repo, "config.json", revision=revision), timeout=_PATIENCE)
    except library.errors.HfHubHTTPError:
        return
    except library.errors.HFValidationError:
        raise
    except Exception as error:  # the network stack below the hub's library raises errors of its own
        raise _unreachable(what) from error


def _check_kind(config: Path, repo: str) -> None:
    content = read_json(config)
    kind = content.get("model_type") if isinstance(content, dict) else None
    if kind != "groupvit" and not (isinstance(content, dict) and content.get("format") == FORMAT):
        raise MixreorgError(f"the model {repo} on the hub is not a GroupViT but {kind or 'of no known type'}")


def _explained(action: Callable[[], _Result], what: str, login: str) -> _Result:
    """Run something that speaks with the hub; its many errors become one of ours."""
    errors = _library(what).errors
    try:
        return action()
    except MixreorgError:
        raise
    except (errors.RepositoryNotFoundError, errors.LocalTokenNotFoundError) as error:
        raise MixreorgError(f"{what}: there is no such model, or it is closed to you; {login}") from error
    except errors.RevisionNotFoundError as error:
        raise MixreorgError(f"{what}: it has no such revision; check what follows the @") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise _unreachable(what) from error
    except errors.EntryNotFoundError as error:
        raise MixreorgError(f"{what}: it lacks a file that every GroupViT has ({_first_line(error)})") from error
    except (errors.HfHubHTTPError, errors.HFValidationError) as error:
        raise MixreorgError(f"{what}: {_first_line(error)}") from error
    except Exception as error:  # the network stack below the hub's library raises errors of its own
        raise MixreorgError(f"{what}: {_first_line(error)}; is there a network?") from error


def _unreachable(what: str) -> MixreorgError:
    return MixreorgError(
        f"{what}: the hub cannot be reached (or HF_HUB_OFFLINE is set) and the model is not in the cache; fetch it "
        "once with a network, or copy its folder here and give the folder"
    )


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _library(purpose: str) -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        raise MixreorgError(f"{purpose}, install the extra 'hub': pip install 'mixreorg[hub]'") from error
    return huggingface_hub
