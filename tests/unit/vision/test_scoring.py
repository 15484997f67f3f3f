"""Scoring whatever predicts, here a function that knows the answers."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from PIL import Image
from table_support import break_image, table  # noqa: F401
from torch import Tensor

from rtdetr_slurm.errors import ActionError
from rtdetr_slurm.vision.boxes import normalise_boxes
from rtdetr_slurm.vision.drawing import CELL, MARGIN
from rtdetr_slurm.vision.examples import draw_examples
from rtdetr_slurm.vision.metrics import score_detections
from rtdetr_slurm.vision.preprocess import Resize
from rtdetr_slurm.vision.samples import Batch, EvaluationSet, collate
from rtdetr_slurm.vision.scoring import EvaluationData, Predict, detect, detect_image
from rtdetr_slurm.vision.table import Table

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)

CPU = torch.device("cpu")
QUERIES, CLASSES = 12, 4


def answers(table: Table, images: list[int]) -> Mapping[str, Tensor]:
    """The ground truth of some images as a detector would put it."""
    logits = torch.full((len(images), QUERIES, CLASSES), -10.0)
    boxes = torch.zeros(len(images), QUERIES, 4)
    for row, image in enumerate(images):
        truth, labels = table.boxes[table.rows(image)], table.labels[table.rows(image)]
        corners = torch.from_numpy(np.hstack([truth[:, :2], truth[:, :2] + truth[:, 2:]]))
        boxes[row, : len(labels)] = normalise_boxes(corners, 96, 96)
        logits[row, torch.arange(len(labels)), torch.from_numpy(labels)] = 5.0
    return {"pred_logits": logits, "pred_boxes": boxes}


def batches(data: EvaluationData, size: int = 4) -> list[Batch]:
    samples = EvaluationSet(data.table, data.resize)
    positions = [range(i, min(i + size, len(samples))) for i in range(0, len(samples), size)]
    return [collate([samples[i] for i in few]) for few in positions]


def oracle(data: EvaluationData, shares: list[Batch]) -> Predict:
    images = iter([batch.images for batch in shares])

    def predict(pixels: Tensor) -> Mapping[str, Tensor]:
        assert pixels.dtype == torch.float32
        assert tuple(pixels.shape[-2:]) == data.resize.size
        assert 0 <= pixels.min() < pixels.max() <= 1
        assert not torch.is_grad_enabled()
        return answers(data.table, next(images))

    return predict


@pytest.fixture
def data(table: Table) -> EvaluationData:
    return EvaluationData(table, Resize((64, 32)), num_select=10, conf_threshold=0.5)


def test_the_right_answers_score_one(data: EvaluationData) -> None:
    shares = batches(data)
    found = list(detect(oracle(data, shares), shares, data, CPU))
    rows = np.concatenate([detected.rows for detected in found])
    assert len(rows) == len(data.table.labels)  # the threshold leaves nothing else
    np.testing.assert_allclose(rows[:, 1:5], data.table.boxes, atol=1e-3)
    summary = score_detections(data.table, rows).summary
    assert summary["mAP"] == pytest.approx(1)
    assert found[0].logits.shape == (4, QUERIES, CLASSES)


@pytest.mark.parametrize("size", [(64, 32), (32, 64)])
def test_images_that_keep_their_aspect_ratio(table: Table, size: tuple[int, int]) -> None:
    """What a detector is taught of a padded image, said by it, is the ground truth again."""
    image = Image.open(table.path(0))
    for number in range(len(table)):  # odd sizes, wide ones and tall ones
        stretched = image.resize((97 + 20 * number, 201 - 13 * number))
        stretched.save(table.path(number))
    object.__setattr__(table, "sizes", np.zeros_like(table.sizes))  # that nobody states
    data = EvaluationData(table, Resize(size, preserve_aspect_ratio=True), num_select=10)
    shares = batches(data)

    def predict(pixels: Tensor) -> Mapping[str, Tensor]:
        [batch] = [one for one in shares if torch.equal(one.pixels / 255, pixels)]
        logits = torch.full((len(batch.images), QUERIES, CLASSES), -10.0)
        boxes = torch.full((len(batch.images), QUERIES, 4), 0.5)
        for row, target in enumerate(batch.targets()):
            boxes[row, : len(target["boxes"])] = target["boxes"]
            logits[row, torch.arange(len(target["labels"])), target["labels"]] = 5.0
        return {"pred_logits": logits, "pred_boxes": boxes}

    rows = np.concatenate([one.rows for one in detect(predict, shares, data, CPU)])
    rows = rows[rows[:, 5] > 0.5]
    np.testing.assert_allclose(rows[:, 1:5], table.boxes, atol=1e-3)


def test_an_image_without_detections_shifts_no_other(data: EvaluationData) -> None:
    """Of a batch, with a threshold that leaves nothing of its second image."""
    shares = batches(data)

    def predict(pixels: Tensor) -> Mapping[str, Tensor]:
        found = answers(data.table, shares[0].images)
        found["pred_logits"][1] = -1.0
        return found

    [detected] = detect(predict, shares[:1], data, CPU)
    assert {int(row[0]) for row in detected.rows} == {0, 2, 3}
    truth = np.concatenate([data.table.boxes[data.table.rows(image)] for image in (0, 2, 3)])
    np.testing.assert_allclose(detected.rows[:, 1:5], truth, atol=1e-3)


def test_nothing_is_found_on_what_cannot_be_decoded(data: EvaluationData) -> None:
    break_image(data.table, 5)
    shares = batches(data)
    found = detect(oracle(data, shares), shares, data, CPU)
    images = {int(row[0]) for detected in found for row in detected.rows}
    assert 5 not in images
    assert {4, 6} <= images


def test_a_detector_that_gives_no_numbers_is_an_error(data: EvaluationData) -> None:
    """And not one that finds nothing."""
    shares = batches(data)

    def broken(pixels: Tensor) -> Mapping[str, Tensor]:
        found = answers(data.table, shares[0].images)
        found["pred_logits"][1] = float("nan")
        return found

    with pytest.raises(ActionError, match=r"output for image \d+ \(.+\) is no number"):
        list(detect(broken, shares[:1], data, CPU))


def test_one_image_has_its_own_pixels(data: EvaluationData) -> None:
    def centre(pixels: Tensor) -> Mapping[str, Tensor]:
        assert tuple(pixels.shape) == (1, 3, 64, 32)
        box = torch.tensor([0.5, 0.5, 0.5, 0.5])
        return {"pred_logits": torch.tensor([[[1.0, 2.0]]]), "pred_boxes": box.expand(1, 1, 4)}

    found = detect_image(centre, np.full((50, 200, 3), 9, np.uint8), data, CPU)
    assert found.labels.tolist() == [[1, 0]]
    assert found.boxes[0, 0].tolist() == [50, 12.5, 150, 37.5]


def test_examples_leave_out_what_cannot_be_decoded(data: EvaluationData) -> None:
    def size() -> tuple[int, int]:
        jpeg = draw_examples(lambda _: answers(data.table, [0]), data, CPU)
        with Image.open(io.BytesIO(jpeg)) as picture:
            return picture.size

    pitch = CELL + MARGIN
    assert size() == (4 * pitch + MARGIN, 2 * pitch + MARGIN)  # eight of the ten images
    for image in range(5):
        break_image(data.table, image)
    assert size() == (4 * pitch + MARGIN, pitch + MARGIN)
