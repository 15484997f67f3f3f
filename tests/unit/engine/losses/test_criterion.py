"""The vectorised criterion against loops over sets, images and pairs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from model_support import NUM_CLASSES, small_config, targets
from torch import Tensor

from rtdetr_slurm.engine.losses import build_criterion
from rtdetr_slurm.engine.models import Outputs
from rtdetr_slurm.engine.models.types import PaddedTargets
from rtdetr_slurm.vision.boxes import cxcywh_to_xyxy, iou_and_giou
from rtdetr_slurm.vision.samples import Target

LAYERS, QUERIES, GROUPS = 3, 8, 2
Pairs = list[tuple[int, int]]
"""(query, target) of one image."""


def random_outputs(batch: int, slots: int, dtype: torch.dtype = torch.float64) -> Outputs:
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    number = GROUPS * 2 * slots
    logits = draw(LAYERS + 1, batch, QUERIES, NUM_CLASSES).requires_grad_()
    boxes = draw(LAYERS + 1, batch, QUERIES, 4).sigmoid().requires_grad_()
    outputs = Outputs(
        pred_logits=logits[-2],
        pred_boxes=boxes[-2],
        set_logits=logits,
        set_boxes=boxes,
        dn_logits=draw(LAYERS, batch, number, NUM_CLASSES).requires_grad_(),
        dn_boxes=draw(LAYERS, batch, number, 4).sigmoid().requires_grad_(),
        dn_groups=GROUPS,
    )
    return outputs


def reference(
    logits: Tensor, boxes: Tensor, batch: list[Target], pairs: list[Pairs], divisor: float
) -> dict[str, Tensor]:
    """One set: dense varifocal targets, and a loop over the pairs."""
    score = torch.zeros_like(logits)
    positive = torch.zeros_like(logits)
    bbox = giou_loss = torch.zeros((), dtype=logits.dtype)
    for image, (target, matched) in enumerate(zip(batch, pairs, strict=True)):
        for query, index in matched:
            box, truth = boxes[image, query], target["boxes"][index].to(boxes.dtype)
            iou, giou = iou_and_giou(cxcywh_to_xyxy(box), cxcywh_to_xyxy(truth))
            label = int(target["labels"][index])
            score[image, query, label] = iou.detach()
            positive[image, query, label] = 1
            bbox = bbox + (box - truth).abs().sum()
            giou_loss = giou_loss + 1 - giou
    weight = 0.75 * logits.detach().sigmoid() ** 2 * (1 - positive) + score
    vfl = F.binary_cross_entropy_with_logits(logits, score, weight, reduction="sum")
    sums = {"loss_vfl": vfl, "loss_bbox": 5 * bbox, "loss_giou": 2 * giou_loss}
    return {name: value / divisor for name, value in sums.items()}


def expected_terms(outputs: Outputs, batch: list[Target], num_boxes: float) -> dict[str, Tensor]:
    criterion = build_criterion(small_config())
    padded = PaddedTargets.from_list(batch)
    queries = criterion.matcher(outputs["set_logits"], outputs["set_boxes"], padded)
    suffixes = ["_aux_0", "_aux_1", "", "_enc"]
    terms = {}
    for index, suffix in enumerate(suffixes):
        pairs = [[(int(q), t) for t, q in enumerate(image) if q >= 0] for image in queries[index]]
        found = reference(
            outputs["set_logits"][index], outputs["set_boxes"][index], batch, pairs, num_boxes
        )
        terms |= {name + suffix: value for name, value in found.items()}
    for layer in range(LAYERS):
        pairs = [
            [
                (group * 2 * padded.size + index, index)
                for group in range(GROUPS)
                for index in range(len(target["labels"]))
            ]
            for target in batch
        ]
        found = reference(
            outputs["dn_logits"][layer],
            outputs["dn_boxes"][layer],
            batch,
            pairs,
            num_boxes * GROUPS,
        )
        terms |= {f"{name}_dn_{layer}": value for name, value in found.items()}
    return terms


def gradients(outputs: Outputs, terms: dict[str, Tensor]) -> list[Tensor]:
    leaves = [outputs[k] for k in ("set_logits", "set_boxes", "dn_logits", "dn_boxes")]
    total = torch.stack(list(terms.values())).sum()
    return list(torch.autograd.grad(total, leaves, retain_graph=True))


@pytest.mark.parametrize("counts", [(3, 1), (0, 4)])
def test_terms_and_gradients(counts: tuple[int, ...]) -> None:
    batch = targets(*counts)
    for target in batch:
        target["boxes"] = target["boxes"].double()
    outputs = random_outputs(len(counts), max(counts))
    found = build_criterion(small_config())(outputs, batch, torch.tensor(2.5))
    expected = expected_terms(outputs, batch, 2.5)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)
    for mine, theirs in zip(gradients(outputs, found), gradients(outputs, expected), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("counts", [(3, 1), (0, 4), (0, 0)])
def test_matchability_aware_loss(counts: tuple[int, ...]) -> None:
    """DEIM's: target IoU^1.5, negatives weighed by p^1.5, positives by 1; beside dense targets."""
    batch = targets(*counts)
    for target in batch:
        target["boxes"] = target["boxes"].double()
    outputs = random_outputs(len(counts), max(*counts, 1))
    criterion = build_criterion(small_config(loss_types=["vfl"], vfl_loss_coef=2.0), "deim")
    found = criterion(outputs, batch, torch.tensor(2.5))
    logits, boxes = outputs["set_logits"][-2], outputs["set_boxes"][-2]
    queries = criterion.matcher(logits[None], boxes[None], PaddedTargets.from_list(batch))[0]
    score, positive = torch.zeros_like(logits), torch.zeros_like(logits)
    for image, target in enumerate(batch):
        for truth, label, query in zip(
            target["boxes"], target["labels"], queries[image], strict=False
        ):
            box = boxes[image, query]
            iou, _ = iou_and_giou(cxcywh_to_xyxy(box), cxcywh_to_xyxy(truth))
            score[image, query, label] = iou.detach() ** 1.5
            positive[image, query, label] = 1
    weight = logits.detach().sigmoid() ** 1.5 * (1 - positive) + positive
    expected = F.binary_cross_entropy_with_logits(logits, score, weight, reduction="sum")
    expected = 2.0 * expected / 2.5
    torch.testing.assert_close(found["loss_mal"], expected)
    leaf = outputs["set_logits"]
    ours, theirs = (
        torch.autograd.grad(loss, leaf, retain_graph=True)[0][-2]
        for loss in (found["loss_mal"], expected)
    )
    torch.testing.assert_close(ours, theirs)
    assert not any(name.startswith("loss_vfl") for name in found)


def test_no_boxes_at_all() -> None:
    outputs = random_outputs(2, 1)
    terms = build_criterion(small_config())(outputs, targets(0, 0), torch.tensor(1.0))
    expected = reference(
        outputs["set_logits"][2], outputs["set_boxes"][2], targets(0, 0), [[], []], 1.0
    )
    torch.testing.assert_close(terms["loss_vfl"], expected["loss_vfl"])
    assert terms["loss_bbox"] == terms["loss_giou"] == 0
    assert all(value == 0 for name, value in terms.items() if "_dn_" in name)
    assert all(torch.isfinite(grad).all() for grad in gradients(outputs, terms))


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"aux_loss": False}, {"", "_enc", "_dn_2"}),
        ({}, {"", "_enc", "_aux_0", "_aux_1", "_dn_0", "_dn_1", "_dn_2"}),
    ],
)
@pytest.mark.parametrize("loss_types", [["vfl"], ["boxes"], ["vfl", "boxes"]])
def test_which_terms_there_are(
    changes: dict[str, Any], kept: set[str], loss_types: list[str]
) -> None:
    names = {"vfl": ["loss_vfl"], "boxes": ["loss_bbox", "loss_giou"]}
    cfg = small_config(loss_types=loss_types, **changes)
    outputs, batch = random_outputs(2, 3), targets(3, 1)
    terms = build_criterion(cfg)(outputs, batch, torch.tensor(4.0))
    assert set(terms) == {n + s for kind in loss_types for n in names[kind] for s in kept}
    complete = build_criterion(small_config())(outputs, batch, torch.tensor(4.0))
    for name, value in terms.items():
        torch.testing.assert_close(value, complete[name])


def test_weights_come_from_the_spec() -> None:
    outputs, batch = random_outputs(2, 3), targets(3, 1)
    one = build_criterion(small_config())(outputs, batch, torch.tensor(4.0))
    cfg = small_config(vfl_loss_coef=2.0, bbox_loss_coef=0.0, giou_loss_coef=6.0)
    other = build_criterion(cfg)(outputs, batch, torch.tensor(4.0))
    for name, value in other.items():
        factor = {"loss_vfl": 2.0, "loss_bbox": 0.0, "loss_giou": 3.0}
        scale = next(f for prefix, f in factor.items() if name.startswith(prefix))
        torch.testing.assert_close(value, one[name] * scale)
    cfg = small_config(alpha=0.25, gamma=1.0)
    assert not torch.allclose(
        build_criterion(cfg)(outputs, batch, torch.tensor(4.0))["loss_vfl"], one["loss_vfl"]
    )


def test_half_precision_outputs_are_scored_in_float32_even_under_autocast() -> None:
    outputs, batch = random_outputs(2, 3, torch.bfloat16), targets(3, 1)
    outside = build_criterion(small_config())(outputs, batch, torch.tensor(4.0))
    with torch.autocast("cpu", torch.bfloat16):
        inside = build_criterion(small_config())(outputs, batch, torch.tensor(4.0))
    for name, value in inside.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, outside[name])


def test_terms_of_one_set_are_those_of_the_last_layer() -> None:
    outputs, batch = random_outputs(2, 3), targets(3, 1)
    criterion = build_criterion(small_config())
    complete = criterion(outputs, batch, torch.tensor(4.0))
    alone = criterion.layer_terms(
        outputs["pred_logits"], outputs["pred_boxes"], batch, torch.tensor(4.0)
    )
    assert set(alone) == {"loss_vfl", "loss_bbox", "loss_giou"}
    for name, value in alone.items():
        torch.testing.assert_close(value, complete[name])
