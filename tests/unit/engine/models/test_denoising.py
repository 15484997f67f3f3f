"""Structure of the denoising queries; their noise is compared in tests/numerics."""

from __future__ import annotations

import torch
from model_support import (
    NUM_CLASSES,
    images,
    small_config,
    small_model,
    step,
    targets,
    without_gradient,
)
from torch import nn

from rtdetr_slurm.engine.losses import build_criterion
from rtdetr_slurm.engine.models.denoising import denoising_queries
from rtdetr_slurm.engine.models.types import PaddedTargets

QUERIES = 6


def make(counts: tuple[int, ...], budget: int = 8):
    embed = nn.Embedding(NUM_CLASSES + 1, 4, NUM_CLASSES)
    return denoising_queries(
        PaddedTargets.from_list(targets(*counts)), budget, NUM_CLASSES, QUERIES, embed
    )


def test_padded_targets() -> None:
    batch = targets(0, 3, 1)
    padded = PaddedTargets.from_list(batch)
    assert padded.counts == (0, 3, 1)
    assert padded.size == 3
    assert padded.valid.tolist() == [[False] * 3, [True] * 3, [True, False, False]]
    torch.testing.assert_close(padded.boxes[1], batch[1]["boxes"])
    assert padded.boxes[~padded.valid].abs().sum() == 0


def test_number_of_groups() -> None:
    assert make((3, 1)).groups == 2  # 8 // 3
    assert make((3, 1)).content.shape == (2, 2 * 2 * 3, 4)
    assert make((8,)).groups == 1
    assert make((8,)).slots is None


def test_of_more_boxes_than_the_budget_some_are_copied() -> None:
    """Each as likely as the other, real ones before padding; 700 boxes make no 1,400 queries."""
    batch = PaddedTargets.from_list(targets(20, 3, 12))
    embed = nn.Embedding(NUM_CLASSES + 1, 4, NUM_CLASSES)
    copied = torch.zeros(20)
    for _ in range(200):
        queries = denoising_queries(batch, 8, NUM_CLASSES, QUERIES, embed)
        assert (queries.groups, queries.content.shape) == (1, (3, 2 * 8, 4))
        assert queries.slots is not None
        chosen = batch.take(queries.slots)
        assert chosen.counts == (8, 3, 8)
        assert chosen.valid.sum(1).tolist() == [8, 3, 8]
        assert all(len(set(row)) == 8 for row in queries.slots.tolist())
        assert set(queries.slots[1, :3].tolist()) == {0, 1, 2}
        copied += torch.bincount(queries.slots[0], minlength=20)
    assert copied.min() > 40  # 80 are expected
    assert copied.max() < 120


def test_the_loss_of_some_boxes_compares_them_with_themselves() -> None:
    """Where the network returns the denoised boxes without their noise, there is no loss."""
    batch, cfg = targets(20, 3), small_config()
    outputs = small_model().train()(images(2), batch)
    chosen = PaddedTargets.from_list(batch).take(outputs["dn_slots"])
    assert outputs["dn_boxes"].shape == (3, 2, 2 * 8, 4)
    outputs["dn_boxes"] = chosen.boxes.repeat(1, 2, 1).expand(3, -1, -1, -1)
    terms = build_criterion(cfg)(outputs, batch, torch.tensor(4.0))
    for layer in range(3):
        assert terms[f"loss_bbox_dn_{layer}"] == 0
        assert terms[f"loss_giou_dn_{layer}"].abs() < 1e-5
    assert terms["loss_bbox"] > 0


def test_attention_mask() -> None:
    """Brute force: a query may look at another one iff that is a selected one or of its group."""
    queries = make((3, 1))
    group = [0] * 6 + [1] * 6 + [None] * QUERIES
    for row, mine in enumerate(group):
        for column, theirs in enumerate(group):
            expected = theirs is None or mine == theirs
            assert bool(queries.allowed[row, column]) == expected, (row, column)


def test_positives_stay_near_and_negatives_move_away() -> None:
    batch = targets(4)
    boxes = batch[0]["boxes"]
    noisy = make((4,), budget=400).box_logits.sigmoid().view(100, 2, 4, 4)
    inner = (boxes[:, :2] - boxes[:, 2:] / 2 >= 0).all(1) & (
        boxes[:, :2] + boxes[:, 2:] / 2 <= 1
    ).all(1)
    assert inner.all()
    low = noisy[..., :2] - noisy[..., 2:] / 2
    moved = (low - (boxes[:, :2] - boxes[:, 2:] / 2)).abs() / (boxes[:, 2:] / 2)
    assert (moved[:, 0] <= 1.001).all()  # positives: up to half the size
    inside = (low[:, 1] > 0.01) & (noisy[:, 1, :, 2:] > 0.01)  # neither clipped nor turned over
    assert (moved[:, 1][inside] >= 0.999).all()


def test_a_batch_without_boxes_has_the_same_graph_and_no_denoising_loss() -> None:
    cfg = small_config()
    full, empty = small_model(), small_model()
    outputs, terms = step(full, targets(2, 0), cfg)
    outputs_empty, terms_empty = step(empty, targets(0, 0), cfg)
    assert outputs.keys() == outputs_empty.keys()
    assert terms.keys() == terms_empty.keys()
    assert without_gradient(full) == without_gradient(empty) == []
    for name, term in terms_empty.items():
        assert torch.isfinite(term)
        if "vfl" not in name or "_dn" in name:
            assert term == 0, name
        else:
            assert term > 0, name
    embed = empty.decoder.denoising_class_embed.weight.grad
    assert embed is not None
    assert embed.abs().sum() == 0
