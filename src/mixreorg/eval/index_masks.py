"""Reading masks that hold one class index per pixel."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mixreorg.errors import MixreorgError

StoredMask = npt.NDArray[np.integer]
"""``[H, W]`` values as a file holds them."""

_INDEX_MODES = ("P", "L", "I", "I;16")

_GREY_STEPS = {"L;2": 85, "L;4": 17}
"""What Pillow multiplies the values of grey pictures of 2 and 4 bits by, so that white is 255."""


def read_stored_mask(path: Path) -> StoredMask:
    """Read the values of a mask without a look at what they mean.

    Returns:
        ``[H, W]`` uint8, uint16 or int32; of a palette picture the palette indices.

    Raises:
        MixreorgError: missing, damaged, or a picture of colours instead of class indices.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in _INDEX_MODES:
                raise MixreorgError(
                    f"{path} is a picture of mode {image.mode}, but masks hold one index per pixel (grey or palette "
                    "PNG); take the file of the official archive, not one that was opened and saved again"
                )
            step = _GREY_STEPS.get(str(image.tile[0][3]), 1) if image.mode == "L" and image.tile else 1
            stored: StoredMask = np.array(image) // step
    except FileNotFoundError:
        raise MixreorgError(f"the mask {path} is missing; unpack the archive of the masks again") from None
    except MixreorgError:
        raise
    except Exception as error:  # damaged data raises whatever the format's decoder happens to meet
        raise MixreorgError(f"cannot read the mask {path} ({error}); restore the file") from error
    return stored
