"""How large an image is, as its file says: read from the header alone. Standard library only."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""

MAX_PIXELS = 178_956_970
"""Larger images are not decoded: Pillow's limit, against files that unpack to fill the memory."""

ORIENTATION = 0x0112
"""EXIF's tag; values of 5 and more swap the sides."""
_INTEGERS = {1: "B", 3: "H", 4: "I"}
"""TIFF's types of whole numbers, as struct calls them."""


def size_mismatch(stated: Size, found: Size) -> str | None:
    """What is wrong with an image whose annotations state another size than it has upright.

    Args:
        stated: in the annotations, 0 where they do not say.
        found: of the upright image.

    Returns:
        Words that follow the image's name; None: nothing is wrong.
    """
    if all(said in (0, seen) for said, seen in zip(stated, found, strict=True)):
        return None
    sizes = f"is {found[0]} x {found[1]} pixels, but annotated as {stated[0]} x {stated[1]}"
    if stated == found[::-1]:
        return (
            f"{sizes}, with its sides swapped: probably annotated without regard to its EXIF "
            "orientation, which is applied here. Take that tag out of the files (exiftool "
            "-Orientation= FILE) or annotate them upright"
        )
    return (
        f"{sizes}, so its boxes are not where the objects are. Use the images that were annotated, "
        "or scale boxes, width and height to these"
    )


class Header(NamedTuple):
    """What a file says about its image before it is decoded.

    Attributes:
        sizes: that the upright image may have: one for most files; two, where only decoding tells
            how it is turned; none where the header is not of a JPEG or PNG file, or is broken.
        orientation: EXIF's, of a JPEG; 1 is upright.
    """

    sizes: tuple[Size, ...] = ()
    orientation: int = 1

    def is_turned_unseen(self, stated: Size) -> bool:
        """Whether the image is turned or mirrored, and its stated size does not show that whoever
        annotated it knew."""
        width, height = stated
        swapped = self.orientation >= 5 and width != height
        return self.orientation > 1 and (not swapped or 0 in stated)


def read_header(path: Path) -> Header:
    """Look into an image file.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        try:
            start = stream.read(2)
            if start == b"\xff\xd8":
                return _jpeg(stream)
            if start + stream.read(14) == b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR":
                width, height = struct.unpack(">II", stream.read(8))
                # An orientation is rare, and may come at the end.
                return Header(_either(width, height))
        except (struct.error, LookupError):
            pass
    return Header()


def _either(width: int, height: int) -> tuple[Size, ...]:
    return ((width, height),) if width == height else ((width, height), (height, width))


def _jpeg(stream: BinaryIO) -> Header:
    """After the first marker: look for the frame header (SOF0 to SOF15, less DHT, JPG, DAC)."""
    orientation, elsewhere = None, False
    while True:
        marker = stream.read(1)[0]
        while marker in (0xFF, 0x00):  # the byte that begins a marker, and padding
            marker = stream.read(1)[0]
        (length,) = struct.unpack(">H", stream.read(2))
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            _, height, width = struct.unpack(">BHH", stream.read(5))
            if orientation is None and elsewhere:
                return Header(_either(width, height))
            orientation = orientation or 1
            upright = (height, width) if orientation >= 5 else (width, height)
            return Header((upright,), orientation)
        if marker == 0xDA:  # pixels without a frame header
            return Header()
        segment = stream.read(max(length - 2, 0))
        if marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            orientation = _exif_orientation(segment[6:])
        elsewhere |= marker == 0xE1 and b"tiff:Orientation" in segment  # XMP


def _exif_orientation(exif: bytes) -> int | None:
    """The orientation, 1 to 8, in the first directory of a TIFF structure."""
    order = "<" if exif[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", exif, 4)
    (entries,) = struct.unpack_from(order + "H", exif, directory)
    for at in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, kind = struct.unpack_from(order + "HH", exif, at)
        if tag == ORIENTATION:
            (value,) = struct.unpack_from(order + _INTEGERS[kind], exif, at + 8)
            return int(value) if 1 <= value <= 8 else 1
    return None
