"""Models that are part of the package, in folders of their names beside this file.

A folder is a model folder with its model card, made by ``docs/make_bundled_model.py``.
"""

from pathlib import Path

from mixreorg.errors import MixreorgError

_ROOT = Path(__file__).parent
BUNDLED = ("scenes-tiny",)
"""Names that ``load_model`` and ``--model`` of every command take wherever there is no path of this name."""
MAX_BYTES = 8_000_000
"""Most that the folder of one model takes in an installation."""


def bundled_folder(name: str) -> Path:
    """Folder of a bundled model.

    Raises:
        MixreorgError: this installation does not have it.
    """
    folder = _ROOT / name
    # The configuration is written last, so a folder that has one is whole.
    if not (folder / "config.json").is_file():
        raise MixreorgError(
            f"the model {name} is not part of this installation: {folder} is missing; install a release of mixreorg "
            "that has it, or give another model (a folder, a checkpoint, a name on the hub)"
        )
    return folder


def bundled_name(folder: Path) -> str | None:
    """The name of the bundled model that lies in a folder; None for any other folder."""
    return folder.name if folder.name in BUNDLED and folder.parent == _ROOT else None
