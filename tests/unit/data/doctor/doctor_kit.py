"""Shards for the data doctor: healthy ones, and one set with every defect planted a known number of times."""

import io
import json
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from mixreorg.data.doctor.check import check_pairs
from mixreorg.data.doctor.report import CheckConfig, Report

Members = list[tuple[str, bytes]]

PAIR_DEFECTS = {
    "no image": 1,
    "no caption": 3,
    "duplicate member": 1,
    "damaged caption": 2,
    "damaged image": 3,
    "image too large": 1,
    "tiny image": 2,
    "extreme aspect ratio": 1,
    "duplicate pair": 1,
    "duplicate image": 3,
    "duplicate caption": 3,
    "caption is a file name": 2,
    "caption is a URL": 1,
    "caption without letters": 2,
    "placeholder caption": 2,
}
"""What :func:`suspicious_pairs` plants."""

SHARD_DEFECTS = {
    "missing shard": 4,
    "unreadable shard": 2,
    "truncated shard": 1,
    "damaged shard": 1,
    "short shard": 1,
    "shard without statistics": 1,
    "damaged statistics": 1,
}
"""What :func:`write_damaged_shards` plants."""


def photo(number: int, size: tuple[int, int] = (48, 40), image_format: str = "JPEG") -> bytes:
    """An image file unlike those of other numbers."""
    noise = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize(size).save(buffer, image_format)
    return buffer.getvalue()


def huge_image() -> bytes:
    """A PNG whose header promises more pixels than anybody should decode."""
    content = bytearray(photo(0, image_format="PNG"))
    content[16:24] = struct.pack(">II", 20_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def pair(number: int, image: bytes | None = None, caption: bytes | None = None) -> Members:
    key = f"{number:06}"
    text = f"a picture of the object {number}".encode() if caption is None else caption
    return [(f"{key}.jpg", photo(number) if image is None else image), (f"{key}.txt", text)]


def pairs(first: int, count: int) -> Members:
    return [member for number in range(first, first + count) for member in pair(number)]


def write_shard(path: Path, members: Members) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_statistics(shard: Path, asked: int, stored: int) -> None:
    text = json.dumps({"count": asked, "successes": stored, "status_dict": {"success": stored}})
    shard.with_name(f"{shard.stem}_stats.json").write_text(text)


def suspicious_pairs() -> Members:
    """Ten healthy pairs and :data:`PAIR_DEFECTS`."""
    return [
        *pairs(0, 10),
        ("000020.txt", b"a caption alone"),
        ("000021.jpg", photo(21)),
        *pair(22, caption=b""),
        *pair(23, caption=b" \n"),
        *pair(24),
        ("000024.txt", b"another caption of the same name"),
        *pair(25, caption=b"\xff\xfe no UTF-8"),
        ("000026.jpg", photo(26)),
        ("000026.json", b'{"caption": "cut'),
        *pair(27, photo(27)[:600]),
        *pair(28, b"<html>not found</html>"),
        *pair(29, bytes(1000)),
        *pair(30, huge_image()),
        *pair(31, photo(31, (16, 40))),
        *pair(32, photo(32, (31, 31))),
        *pair(33, photo(33, (400, 40))),
        *pair(34, photo(0), b"a picture of the object 0"),
        *pair(35, photo(1)),
        *pair(36, photo(1)),
        *pair(37, caption=b"one text for three"),
        *pair(38, caption=b"one text for three"),
        *pair(39, caption=b"one text for three"),
        *pair(40, caption=b"IMG_1234"),
        *pair(41, caption="Größe 3 (neu).JPG".encode()),
        *pair(42, caption=b"https://a.example/picture?id=3"),
        *pair(43, caption=b"2019-03-04"),
        *pair(44, caption="★ 1 ★".encode()),
        *pair(45, caption=b"Untitled"),
        *pair(46, caption=b"image not available."),
    ]


def write_damaged_shards(folder: Path) -> list[str]:
    """Plant :data:`SHARD_DEFECTS`; returns the specs to check, in which 14 pairs are left.

    ``00001`` is named and counted by a statistics file, ``00003`` is named and a gap, of the other set one is a gap
    and one is counted.
    """
    for shard in (0, 2, 8):
        write_shard(folder / f"0000{shard}.tar", pairs(1000 + 100 * shard, 2))
    write_statistics(folder / "00000.tar", 4, 2)
    write_statistics(folder / "00001.tar", 4, 3)
    write_statistics(folder / "00002.tar", 4, 3)
    truncated = write_shard(folder / "00004.tar", pairs(1400, 3))
    cut_before(truncated, 5)
    write_statistics(folder / "00004.tar", 4, 2)
    damaged = write_shard(folder / "00005.tar", pairs(1500, 3))
    destroy_header(damaged, 4)
    (folder / "00005_stats.json").write_text('{"count": ')
    (folder / "00006.tar").write_bytes(b"<html>not found</html>" * 99)
    write_statistics(folder / "00006.tar", 4, 0)
    (folder / "00007.tar").touch()
    write_statistics(folder / "00007.tar", 4, 0)
    other = folder / "other"
    for number in (7, 9):
        write_shard(other / f"set-{number}-of-11.tar", pairs(2000 + 10 * number, 2))
        write_statistics(other / f"set-{number}-of-11.tar", 2, 2)
    write_statistics(other / "set-10-of-11.tar", 2, 2)
    return [str(folder / "{00000..00008}.tar"), str(other)]


def cut_before(shard: Path, member: int) -> None:
    """Cut a shard in the data of a member."""
    with tarfile.open(shard) as archive:
        end = archive.getmembers()[member].offset_data
    shard.write_bytes(shard.read_bytes()[: end + 1])


def destroy_header(shard: Path, member: int) -> None:
    """Overwrite the header of a member."""
    with tarfile.open(shard) as archive:
        start = archive.getmembers()[member].offset
    content = shard.read_bytes()
    shard.write_bytes(content[:start] + bytes([7]) * 512 + content[start + 512 :])


def check(*specs: str | Path, **settings: object) -> Report:
    return check_pairs([str(spec) for spec in specs], CheckConfig.from_dict({"workers": 1, **settings}))


def counts(report: Report) -> dict[str, int]:
    return {finding.kind.name: finding.count for finding in report.findings}
