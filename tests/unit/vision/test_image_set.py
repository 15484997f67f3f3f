"""Images without annotations, wherever they are."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from archive_support import pack
from PIL import Image

from rtdetr_slurm.data import archives
from rtdetr_slurm.data.image_sources import find_images
from rtdetr_slurm.data.pixels import BadImage
from rtdetr_slurm.vision.image_set import ImageSet, ReadAhead
from rtdetr_slurm.vision.preprocess import Resize
from rtdetr_slurm.vision.table import build_table


def image_set(*entries: Path) -> ImageSet:
    sources, _ = find_images([*map(str, entries)])
    return ImageSet(build_table(sources, {}), Resize((32, 32)))


def picture(brightness: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), brightness, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_one_process_reads_a_compressed_tar_file_once_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{n}.png": picture(n) for n in range(6)} | {"6.png": b"no image"}
    packed = [pack(tmp_path / name, files) for name in ("a.tar.gz", "b.zip", "c.tar")]
    data = image_set(*packed)
    opened = []
    real = archives.gzip.open
    monkeypatch.setattr(archives.gzip, "open", lambda *a: opened.append(a) or real(*a))
    images = range(len(data))
    for _ in range(2):  # a loader may be gone through again
        opened.clear()
        batches = [*ReadAhead(data, [images[i : i + 4] for i in range(0, len(data), 4)])]
        assert len(opened) == 1
        items = [item for batch in batches for item in batch]
        assert [isinstance(item, tuple) for item in items] == [True] * 7 + [False] * 14
        for image, item in zip(images, items, strict=True):
            sample, alone = data[item], data[image]
            assert (sample.image, sample.file, sample.bad) == (image, alone.file, alone.bad)
            assert torch.equal(sample.pixels, alone.pixels)


def test_an_archive_that_has_gone_is_bad_images(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar.gz", {"a.png": picture(1), "b.png": picture(2)})
    data = image_set(path)
    path.write_bytes(b"damaged")
    for batch in ReadAhead(data, [[0], [1]]):
        (bad,) = data[batch[0]].bad
        assert isinstance(bad, BadImage)
        assert "cannot be read" in bad.reason
