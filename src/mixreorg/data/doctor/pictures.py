"""Pictures of single pairs for the report page."""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import ImageFile

from mixreorg.data.decode import decode_image
from mixreorg.data.doctor.examine import Suspect
from mixreorg.data.doctor.report import CheckConfig
from mixreorg.data.doctor.work import Worker
from mixreorg.data.problems import UnusableSampleError
from mixreorg.data.shards import Shard
from mixreorg.errors import MixreorgError

_SIDE = 160


class Pictures:
    """Small pictures of pairs, read again from their parts."""

    def __init__(self, config: CheckConfig) -> None:
        """Take the settings of the check."""
        self._worker = Worker(config)

    def data_uri(self, suspect: Suspect) -> str | None:
        """A picture as a data URI; None where not even the beginning of the image can be decoded.

        Encoded anew: nothing of a file from strangers gets into the page but its pixels.
        """
        if suspect.sample is None:
            return None
        try:
            with _missing_ends_allowed():
                image = decode_image(self._image_file(suspect.shard, suspect.sample))
        except (UnusableSampleError, MixreorgError):
            return None
        image.thumbnail((_SIDE, _SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

    def _image_file(self, shard: str, sample: int) -> bytes:
        part = self._worker.part(shard)
        if isinstance(part, Shard):
            # The image alone: its caption may be what is wrong.
            return part.image_head(sample, part.num_bytes)
        return part.read(sample)[0]


@contextmanager
def _missing_ends_allowed() -> Iterator[None]:
    """Let Pillow show as much of a truncated image as there is."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
