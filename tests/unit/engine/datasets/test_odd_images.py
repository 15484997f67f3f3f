"""Turned images, and such of rare modes: the same pixels to train, evaluate, infer and deploy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from image_support import table as unlabelled
from PIL import Image
from table_support import make_table

from rtdetr_slurm.data.pixels import BadImage, load_image
from rtdetr_slurm.engine.datasets import geometry
from rtdetr_slurm.engine.datasets.training_set import TrainingSet
from rtdetr_slurm.engine.datasets.transforms import Augment
from rtdetr_slurm.spec.dataset import AugmentationConfig
from rtdetr_slurm.vision.image_set import ImageSet
from rtdetr_slurm.vision.preprocess import Resize, preprocess
from rtdetr_slurm.vision.samples import EvaluationSet

SIZE = (32, 64)
"""Height and width."""


def upright() -> Image.Image:
    """White in the upper left quarter, else nearly black."""
    pixels = np.full((*SIZE, 3), 10, np.uint8)
    pixels[:16, :32] = 255
    return Image.fromarray(pixels)


def as_stored(orientation: int) -> Image.Image:
    """The image whose file says this about itself, for people to see it upright."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return upright().transpose(undo[orientation])


def write_all(folder: Path) -> list[str]:
    """Files of all kinds, each of which shows `upright`."""
    folder.mkdir(parents=True)
    image = upright()
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for suffix in ("jpg", "png", "tif", "webp"):
            as_stored(orientation).save(
                folder / f"turned-{orientation}.{suffix}", exif=exif, quality=95
            )
    for mode in ("1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "I;16", "I"):
        wide = mode.startswith("I")
        converted = image.convert("L" if wide else mode)
        if wide:
            values = np.asarray(converted).astype(np.uint16) * 257
            converted = Image.fromarray(values if mode == "I;16" else values.astype(np.int32))
        wide_alone = ("png", "tif")  # others have no room for sixteen bits
        for suffix in wide_alone if wide else ("png", "tif", "jpg", "bmp", "gif", "webp"):
            try:
                converted.save(folder / f"{mode.replace(';', '')}.{suffix}")
            except (OSError, ValueError):  # the format has no such mode
                (folder / f"{mode.replace(';', '')}.{suffix}").unlink(missing_ok=True)
    clear = image.convert("P")
    clear.save(folder / "transparent.png", transparency=0)
    image.save(folder / "moving.gif", save_all=True, append_images=[Image.new("RGB", (64, 32))])
    image.save(folder / "large.jpg", quality=95, progressive=True)
    image.save(folder / "two.mpo", save_all=True, append_images=[Image.new("RGB", (64, 32))])
    return sorted(path.name for path in folder.iterdir())


def test_all_are_given_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "FLIP_PROBABILITY", 0)
    names = write_all(tmp_path / "images")
    assert len(names) > 50
    content = {
        "images": [
            {"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
            for number, name in enumerate(names)
        ],
        "annotations": [
            {"image_id": number, "category_id": 1, "bbox": [0, 0, 32, 16]}
            for number in range(len(names))
        ],
        "categories": [{"id": 1, "name": "corner"}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    table = make_table(tmp_path)
    cfg = AugmentationConfig(train_spatial_size=list(SIZE))
    training = TrainingSet(table, Augment(cfg, plain=True), 0, replace_bad=False)
    evaluation = EvaluationSet(table, Resize(SIZE))
    inference = ImageSet(unlabelled({str(tmp_path / "images"): names}), Resize(SIZE))
    for image, name in enumerate(names):
        trained, scored, looked_at = training[0, image], evaluation[image], inference[image]
        assert not trained.bad, name
        assert torch.equal(trained.pixels, scored.pixels), name
        assert torch.equal(trained.pixels, looked_at.pixels), name
        assert torch.equal(trained.boxes, scored.boxes), name
        assert scored.size == looked_at.size == SIZE[::-1], name
        loaded = load_image(table.path(image))
        assert not isinstance(loaded, BadImage)
        deployed = (preprocess(loaded, Resize(SIZE))[0] * 255).round().to(torch.uint8)
        assert torch.equal(trained.pixels, deployed), name
        corner, rest = trained.pixels[:, :14, :30].float(), trained.pixels[:, 18:].float()
        assert corner.mean() > 240, name
        assert rest.mean() < 25, name
