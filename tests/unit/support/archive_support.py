"""Small archives."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

FILES = {"./b.jpg": b"second", "cam 1/a.jpg": b"first" * 300, "cam 1/notes.txt": b"no image"}


def pack(path: Path, files: Mapping[str, bytes] = FILES) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    compressed = path.suffix.lower() in (".gz", ".tgz")
    with tarfile.open(path, "w:gz" if compressed else "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path
