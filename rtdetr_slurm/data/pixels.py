"""Image files to upright 8-bit RGB. Pillow is loaded with the first of them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rtdetr_slurm.data.image_sizes import MAX_PIXELS, ORIENTATION, Size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

T = TypeVar("T")

_SWAPPED = (5, 6, 7, 8)
"""Orientations that change width and height for each other."""
_HEADER_SAYS = ("JPEG", "MPO")
"""Formats of which Pillow knows the orientation, and whether `size` minds it, before decoding."""

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


@dataclass(frozen=True)
class ImageFile:
    """An image file that is open, and may be decoded.

    Attributes:
        size: width and height of the upright image.
        orientation: EXIF's, in which the file has it; 1 is upright.
    """

    path: Path
    size: Size
    orientation: int
    _image: Image.Image

    def decode(self, shrink: int = 1) -> Image.Image | BadImage:
        """The upright image, RGB; good for one call.

        Greyscale, palette, CMYK and alpha become RGB; of 16-bit greyscale the high byte is kept.

        Args:
            shrink: 1, 2, 4 or 8: where the file can be decoded at that fraction of its size, which
                is faster (JPEG), that is done; the sides are rounded up.
        """

        def upright() -> Image.Image:
            from PIL import ImageOps

            with self._image as image:
                width, height = image.size
                # What fills up the last pixels is not to be turned to where the first ones are.
                if _orientation(image) == 1 or not (width % shrink or height % shrink):
                    image.draft(None, (width // shrink, height // shrink))
                ImageOps.exif_transpose(image, in_place=True)  # without a copy of upright ones
                return _to_rgb(image)

        return _or_bad(self.path, upright)

    def close(self) -> None:
        """For one that is not decoded."""
        self._image.close()


def open_image_file(path: Path, content: bytes | None = None) -> ImageFile | BadImage:
    """Read the header of a JPEG file; files of other formats are decoded already.

    Args:
        content: of the file, where that has been read.
    """

    def opened() -> ImageFile:
        from PIL import Image, ImageOps

        image = Image.open(path if content is None else io.BytesIO(content))
        width, height = image.size
        orientation = _orientation(image)
        if image.format not in _HEADER_SAYS:
            ImageOps.exif_transpose(image, in_place=True)
            width, height = image.size
        elif orientation in _SWAPPED:
            width, height = height, width
        return ImageFile(path, (width, height), orientation, image)

    return _or_bad(path, opened)


def load_image(path: Path, content: bytes | None = None) -> NDArray[np.uint8] | BadImage:
    """Read one image as uint8 [H, W, 3], as `ImageFile.decode` has it."""
    import numpy as np

    opened = open_image_file(path, content)
    decoded = opened if isinstance(opened, BadImage) else opened.decode()
    return decoded if isinstance(decoded, BadImage) else np.array(decoded)


def _orientation(image: Image.Image) -> int:
    orientation: int = image.getexif().get(ORIENTATION, 1)
    return orientation


def _or_bad(path: Path, read: Callable[[], T]) -> T | BadImage:
    from PIL import Image, UnidentifiedImageError

    try:
        return read()
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


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are 32-bit floats, whose range is not known")
    if image.mode == "I" or image.mode.startswith("I;16"):
        import numpy as np
        from PIL import Image

        high = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(high).convert("RGB")
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")
