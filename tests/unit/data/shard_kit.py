"""Shards made on the fly."""

import io
import json
import tarfile
from pathlib import Path

from PIL import Image


def image_bytes(level: int = 0, size: tuple[int, int] = (12, 8), suffix: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(buffer, suffix, **options)
    return buffer.getvalue()


def write_shard(path: Path, members: dict[str, bytes] | list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def good_members(first: int, count: int) -> dict[str, bytes]:
    members = {}
    for number in range(first, first + count):
        members[f"{number:05}.png"] = image_bytes(number)
        members[f"{number:05}.txt"] = f"caption {number}".encode()
        members[f"{number:05}.json"] = json.dumps({"caption": f"json {number}", "width": 12}).encode()
    return members
