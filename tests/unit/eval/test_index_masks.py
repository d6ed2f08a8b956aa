import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixreorg.eval.index_masks import read_stored_mask

VALUES = np.array([[0, 1, 2, 3, 2, 1], [3, 3, 0, 0, 1, 2]])


def write_png(path: Path, values: np.ndarray, bits: int, colour: int) -> None:
    """A PNG whose file holds ``values`` in so many bits each; colour type 0 is grey, 3 a palette."""
    rows = b""
    for row in values:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, colour, 0, 0, 0))]
    if colour == 3:
        chunks.append((b"PLTE", bytes(range(12))))
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(content)


@pytest.mark.parametrize("colour", [0, 3], ids=["grey", "palette"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_values_are_those_of_the_file_however_few_bits_it_has(tmp_path: Path, bits: int, colour: int) -> None:
    write_png(tmp_path / "mask.png", VALUES, bits, colour)
    assert read_stored_mask(tmp_path / "mask.png").tolist() == VALUES.tolist()


def test_values_of_sixteen_bits(tmp_path: Path) -> None:
    Image.fromarray((VALUES * 400).astype(np.uint16)).save(tmp_path / "mask.png")
    assert read_stored_mask(tmp_path / "mask.png").tolist() == (VALUES * 400).tolist()
