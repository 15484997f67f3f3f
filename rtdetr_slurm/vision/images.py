"""Image files to upright 8-bit RGB arrays."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from rtdetr_slurm.data.image_sizes import MAX_PIXELS

_DECODE_ERRORS = (
    OSError,
    SyntaxError,  # what Pillow raises for a broken PNG
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class BadImage:
    """A file that cannot be used, and why: words that follow its name."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"image {self.path} {self.reason}"


def load_image(path: Path, content: bytes | None = None) -> NDArray[np.uint8] | BadImage:
    """Read one image as uint8 [H, W, 3], RGB, with its EXIF orientation applied.

    Greyscale, palette, CMYK and alpha become RGB; of 16-bit greyscale the high byte is kept.

    Args:
        content: of the file, where that has been read.
    """
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            upright = ImageOps.exif_transpose(image)
            return _to_rgb(upright)
    except FileNotFoundError:
        return BadImage(str(path), "does not exist")
    except Image.DecompressionBombError:
        return BadImage(
            str(path),
            f"has more than {MAX_PIXELS} pixels, the most that are decoded; cut it into tiles",
        )
    except UnidentifiedImageError:  # Pillow names its own object there
        return BadImage(str(path), "cannot be decoded: it is no image of a known format")
    except _DECODE_ERRORS as error:
        return BadImage(str(path), f"cannot be decoded: {error or type(error).__name__}")


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise ValueError("its pixels are 32-bit floats, whose range is not known")
    if image.mode == "I" or image.mode.startswith("I;16"):
        high = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(high[..., None], 3, axis=-1)
    return np.array(image.convert("RGB"))
