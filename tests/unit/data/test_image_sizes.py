"""Sizes read from headers are those that decoding gives."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

from rtdetr_slurm.data.image_sizes import MAX_PIXELS, Header, read_header, size_mismatch

ORIENTATION = 0x0112
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>'


def exif(orientation: int, order: bytes = b"MM") -> bytes:
    """EXIF data of a few tags, as cameras write them."""
    byteorder = "big" if order == b"MM" else "little"

    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, byteorder)  # type: ignore[arg-type]

    def tag(name: int, value: int) -> bytes:
        return number(name, 2) + number(3, 2) + number(1, 4) + number(value, 2) + bytes(2)

    tags = tag(0x0103, 6) + tag(ORIENTATION, orientation) + tag(0x0128, 2)
    start = order + number(42, 2) + number(8, 4)
    return b"Exif\0\0" + start + number(3, 2) + tags + number(0, 4)


def saved(path: Path, kind: str = "JPEG", mode: str = "RGB", **options: Any) -> Path:
    Image.new(mode, (120, 60)).save(path, kind, **options)
    return path


def decoded_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).size


@pytest.mark.parametrize("order", [b"MM", b"II"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_of_jpeg(tmp_path: Path, orientation: int, order: bytes) -> None:
    path = saved(tmp_path / "a.jpg", exif=exif(orientation, order))
    assert read_header(path).sizes == (decoded_size(path),)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"comment": b"c" * 60_000, "icc_profile": bytes(200_000)},
        {"mode": "L"},
        {"mode": "CMYK"},
        {"exif": exif(6), "xmp": XMP},
        {"exif": Image.Exif().tobytes(), "dpi": (72, 72)},
    ],
)
def test_kinds_of_jpeg(tmp_path: Path, options: dict[str, Any]) -> None:
    path = saved(tmp_path / "a.jpg", **options)
    assert read_header(path).sizes == (decoded_size(path),)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_where_only_decoding_tells_both_are_possible(tmp_path: Path, kind: str) -> None:
    """XMP may turn an image, and so may EXIF at the end of a PNG."""
    options = {"xmp": XMP} if kind == "JPEG" else {"exif": exif(6)[6:]}
    path = saved(tmp_path / "a", kind, **options)
    assert sorted(read_header(path).sizes) == [(60, 120), (120, 60)]
    assert decoded_size(path) in read_header(path).sizes


def test_what_is_not_known(tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.new("RGB", (120, 60)).save(whole, "JPEG", exif=exif(6))
    path = tmp_path / "a.jpg"
    no_length = b"\xff\xd8\xff\xe0\0\0"
    cut = whole.getvalue()[:40]
    for content in (b"", b"text", b"\x89PNG\r\n\x1a\n", cut, b"\xff\xd8" * 9, no_length):
        path.write_bytes(content)
        assert read_header(path) == Header()
    saved(path, "BMP")
    assert read_header(path) == Header()
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "none.jpg")


def test_what_a_size_does_not_show() -> None:
    assert not Header(((120, 60),)).is_turned_unseen((120, 60))
    assert not Header(((120, 60),), 6).is_turned_unseen((120, 60))  # the upright size is stated
    assert Header(((120, 60),), 6).is_turned_unseen((0, 0))
    assert Header(((60, 60),), 6).is_turned_unseen((60, 60))
    assert Header(((120, 60),), 3).is_turned_unseen((120, 60))


def test_mismatch() -> None:
    assert size_mismatch((120, 60), (120, 60)) is None
    assert size_mismatch((0, 0), (120, 60)) is None
    assert size_mismatch((0, 60), (120, 60)) is None
    swapped = size_mismatch((120, 60), (60, 120))
    assert swapped is not None
    assert swapped.startswith(
        "is 60 x 120 pixels, but annotated as 120 x 60, with its sides swapped"
    )
    assert "EXIF" in swapped
    halved = size_mismatch((120, 60), (60, 30))
    assert halved is not None
    assert halved.startswith("is 60 x 30 pixels, but annotated as 120 x 60, so")
    assert "EXIF" not in halved


def test_the_limit_is_the_decoders() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert 2 * Image.MAX_IMAGE_PIXELS == MAX_PIXELS
