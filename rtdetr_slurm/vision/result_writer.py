"""Pictures and label files of images, made beside the device's work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdetr_slurm.data.pixels import BadImage, load_image
from rtdetr_slurm.files import Content
from rtdetr_slurm.vision.drawing import Drawn, Rgb, annotate
from rtdetr_slurm.vision.output_names import OutputFiles
from rtdetr_slurm.vision.predictions import label_lines

_FORMATS: Mapping[str, tuple[str, dict[str, Any]]] = {
    ".jpg": ("JPEG", {"quality": 92}),
    ".jpeg": ("JPEG", {"quality": 92}),
    ".png": ("PNG", {"compress_level": 1}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {"compression": "tiff_lzw"}),
    ".tiff": ("TIFF", {"compression": "tiff_lzw"}),
    ".webp": ("WEBP", {"quality": 92}),
}
"""By suffix: Pillow's name of a format, and how it is written."""


class ResultWriter:
    """Draws and writes in threads, to whom decoding and encoding leave the interpreter free.

    A context manager: on its way out all is written, or, after an exception, what is under way. A
    caller that is far ahead waits.
    """

    def __init__(
        self,
        write: Callable[[str, Content], None],
        outputs: Sequence[OutputFiles],
        classes: Mapping[int, str],
        colours: Mapping[int, Rgb],
        outline: int,
        threads: int,
    ) -> None:
        """
        Args:
            write: replaces a file of the results folder.
            outputs: names of the files of each image.
            classes: class id to name. colours: of those that have one of their own choice.
            outline: width of the boxes' outlines in pixels.
        """
        self.replace, self.outputs = write, outputs
        self.classes, self.colours, self.outline = classes, colours, outline
        self._pool = ThreadPoolExecutor(threads)
        self._most = 4 * threads
        self._under_way: deque[Future[None]] = deque()

    def write(self, image: int, file: bytes, rows: NDArray[np.float64]) -> None:
        """Write the files of one image.

        Args:
            image: its position. file: the content of its file.
            rows: [D, 7] of `predictions.clipped_rows`, of this image.

        Raises:
            what `write` of the constructor raises, for an image before.
        """
        while len(self._under_way) >= self._most:
            self._under_way.popleft().result()
        self._under_way.append(self._pool.submit(self._write, image, file, rows))

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: object, __: TracebackType | None
    ) -> None:
        try:
            while self._under_way and kind is None:
                self._under_way.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _write(self, image: int, file: bytes, rows: NDArray[np.float64]) -> None:
        label, picture = self.outputs[image]
        drawn = self._drawn(file, rows)
        kind, options = _FORMATS[Path(picture).suffix.lower()]
        self.replace(picture, lambda stream: drawn.save(stream, kind, **options))
        self.replace(label, label_lines(rows, self.classes))

    def _drawn(self, file: bytes, rows: NDArray[np.float64]) -> Image.Image:
        pixels = load_image(Path(), file)
        assert not isinstance(pixels, BadImage), "it was decoded before"
        detections = [
            Drawn((x, y, x + width, y + height), int(label), score)
            for _, x, y, width, height, score, label in rows.tolist()
        ]
        return annotate(pixels, detections, self.classes, self.colours, self.outline)
