"""From the network's output to detections."""

from __future__ import annotations

import torch

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
