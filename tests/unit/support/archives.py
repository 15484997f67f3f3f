"""Archives of images for tests, whole and malicious, in memory."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping

IMAGES = {f"images/{number:03}.jpg": bytes([number]) * 700 * number for number in range(1, 9)}


def tar_of(files: Mapping[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    """A tar file, with further entries at its end."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for entry in extra:
            archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    return content.getvalue()


def zip_of(files: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def packed(files: Mapping[str, bytes], suffix: str) -> bytes:
    """An archive of the kind that a suffix stands for."""
    if suffix == ".zip":
        return zip_of(files)
    plain = tar_of(files)
    if suffix == ".tar.zst":
        import zstandard

        return zstandard.compress(plain)
    return plain if suffix == ".tar" else gzip.compress(plain)
