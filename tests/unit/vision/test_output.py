"""From the network's output to detections and pictures."""

from __future__ import annotations

import numpy as np
import torch

from rtdetr_slurm.vision.drawing import CELL, Drawn, class_colour, draw_detections, draw_sheet
from rtdetr_slurm.vision.postprocess import postprocess


def test_best_pairs_of_query_and_class() -> None:
    logits = torch.tensor([[[2.0, -1.0, 0.5], [1.0, 3.0, -2.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.25, 0.75, 0.5, 0.5]]])
    found = postprocess(logits, boxes, torch.tensor([[200, 100]]), num_select=3)
    assert found.labels.tolist() == [[1, 0, 0]]  # 3.0 of query 1, 2.0 of query 0, 1.0 of query 1
    torch.testing.assert_close(found.scores, torch.tensor([[3.0, 2.0, 1.0]]).sigmoid())
    expected = [[0, 50, 100, 100], [80, 30, 120, 70], [0, 50, 100, 100]]
    torch.testing.assert_close(found.boxes, torch.tensor([expected]).float())


def test_every_image_has_its_own_size() -> None:
    boxes = torch.tensor([0.5, 0.5, 1.0, 1.0]).expand(2, 1, 4)
    sizes = torch.tensor([[640.0, 480.0], [30.0, 50.0]])
    found = postprocess(torch.zeros(2, 1, 1), boxes, sizes, num_select=300)
    assert found.boxes[:, 0].tolist() == [[0, 0, 640, 480], [0, 0, 30, 50]]


def test_more_asked_than_there_is() -> None:
    found = postprocess(torch.zeros(1, 4, 3), torch.ones(1, 4, 4), torch.ones(1, 2), num_select=300)
    assert found.scores.shape == (1, 12)


def test_half_precision_is_widened() -> None:
    found = postprocess(
        torch.zeros(1, 4, 3).half(), torch.ones(1, 4, 4).half(), torch.ones(1, 2), num_select=2
    )
    assert found.scores.dtype == found.boxes.dtype == torch.float32


def test_draws_boxes_in_class_colours() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    detections = [
        Drawn((50, 40, 90, 80), 1, 0.9),
        Drawn((120, 40, 160, 80), 2, 0.8),
        Drawn((5, 5, 15, 15), 3, 0.1),  # too weak
        Drawn((-50, -50, 500, 500), 1, 0.5),  # beyond the picture
        Drawn((500, 500, 600, 600), 1, 0.9),  # nothing of it inside
    ]
    drawn = np.asarray(draw_detections(pixels, detections, {1: "one", 2: "two"}))
    scale = CELL / 200
    assert drawn.shape == (CELL // 2, CELL, 3)
    assert tuple(drawn[int(60 * scale), int(50 * scale) + 1]) == class_colour(1)
    assert tuple(drawn[int(60 * scale), int(120 * scale) + 1]) == class_colour(2)
    assert not drawn[int(10 * scale), int(10 * scale)].any()
    assert not (drawn == class_colour(3)).all(axis=-1).any()


def test_sheet_has_a_cell_for_each() -> None:
    picture = (np.full((50, 70, 3), 200, np.uint8), [Drawn((1, 1, 20, 20), 0, 0.99)])
    assert draw_sheet([picture] * 3, {}).width < draw_sheet([picture] * 4, {}).width
    assert draw_sheet([picture] * 4, {}).height < draw_sheet([picture] * 5, {}).height
    assert draw_sheet([], {}).size
