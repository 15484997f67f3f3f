"""Losses of classes and boxes on every decoder layer, the encoder's selection and denoising."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdetr_slurm.engine.losses.matcher import Matcher
from rtdetr_slurm.engine.models.types import Outputs, PaddedTargets
from rtdetr_slurm.vision.boxes import cxcywh_to_xyxy, iou_and_giou
from rtdetr_slurm.vision.samples import Target

if TYPE_CHECKING:
    from rtdetr_slurm.spec.engine import RecipeName
    from rtdetr_slurm.spec.model import ModelConfig

MAL_GAMMA = 1.5
"""Of the matchability-aware loss, as DEIM trains RT-DETRv2."""

CLASSIFICATION = frozenset({"loss_vfl", "loss_mal"})
"""The losses in which every logit counts, matched or not."""

Terms: TypeAlias = dict[str, Tensor]
"""Loss name to [S], one value per prediction set."""


@dataclass(frozen=True)
class Pairs:
    """Sets of predictions, and queries of them beside the targets that they are matched with.

    Attributes:
        logits: [S, B, N, C], of all queries.
        target_logits: [S, ...], of the matched queries at their target's class.
        boxes: [S, ..., 4], of the matched queries.
        target_boxes: broadcasts to `boxes`.
        matched: bool [S, ...], False where there is no pair after all.
        num_boxes: what the sums are divided by.
    """

    logits: Tensor
    target_logits: Tensor
    boxes: Tensor
    target_boxes: Tensor
    matched: Tensor
    num_boxes: Tensor

    def total(self, values: Tensor) -> Tensor:
        """Sums [S] over the pairs that there are, of values of all in one row."""
        there = torch.where(self.matched, values.view(self.matched.shape), 0)
        return there.flatten(1).sum(1)


class Criterion(nn.Module):
    """The weighted loss terms of a training step.

    Args:
        matcher: assigns queries to targets.
        weights: of `loss_vfl` or `loss_mal`, `loss_bbox` and `loss_giou`; a name that is absent is
            not computed.
        alpha, gamma: of the varifocal loss.
        aux_loss: whether the decoder layers before the last one are supervised too.
    """

    def __init__(
        self,
        matcher: Matcher,
        weights: dict[str, float],
        alpha: float = 0.75,
        gamma: float = 2.0,
        aux_loss: bool = True,
    ) -> None:
        super().__init__()
        self.matcher = matcher
        self.weights = weights
        self.alpha, self.gamma, self.aux_loss = alpha, gamma, aux_loss

    def forward(
        self, outputs: Outputs, targets: Sequence[Target], num_boxes: Tensor
    ) -> dict[str, Tensor]:
        """Compute the terms; the objective is their sum.

        Args:
            outputs: of the model in training mode.
            targets: one per image.
            num_boxes: scalar; boxes per rank, averaged over the ranks, at least 1.

        Returns:
            `loss_vfl` (or `loss_mal`), `loss_bbox`, `loss_giou` of the last decoder layer; with
            `_aux_i` of layer i before it; with `_enc` of the encoder's selection; with `_dn_i` of
            layer i's denoising queries. Scalars in float32 (float64 for float64 outputs), whatever
            autocast says.

        Every output takes part in the graph, if need be with weight 0: every parameter of the model
        gets a gradient on every rank, also where a batch has no boxes.
        """
        device = outputs["set_logits"].device.type
        with torch.autocast(device, enabled=False):
            logits, boxes = _full(outputs["set_logits"]), _full(outputs["set_boxes"])
            padded = PaddedTargets.from_list(targets, boxes.dtype)
            layers = len(logits) - 1
            names = [f"_aux_{i}" for i in range(layers - 1)] + ["", "_enc"]
            kept = range(len(names)) if self.aux_loss else (layers - 1, layers)
            parts = [self._set_pairs(logits, boxes, padded, num_boxes)]
            unused = 0 * (logits.sum() + boxes.sum())
            if "dn_logits" in outputs:
                logits, boxes = _full(outputs["dn_logits"]), _full(outputs["dn_boxes"])
                unused = unused + 0 * (logits.sum() + boxes.sum())
                if "dn_slots" in outputs:
                    padded = padded.take(outputs["dn_slots"])
                parts.append(_dn_pairs(logits, boxes, outputs["dn_groups"], padded, num_boxes))
            terms, *dn_terms = self._terms(*parts)
            losses = _named(terms, names, kept)
            for terms in dn_terms:
                names = [f"_dn_{i}" for i in range(layers)]
                losses |= _named(terms, names, range(layers) if self.aux_loss else (layers - 1,))
            first = next(iter(losses))
            return losses | {first: losses[first] + unused}

    def layer_terms(
        self, logits: Tensor, boxes: Tensor, targets: Sequence[Target], num_boxes: Tensor
    ) -> dict[str, Tensor]:
        """The terms of one set of predictions, as validation has them: logits [B, Q, C], boxes
        [B, Q, 4]; otherwise like `forward`."""
        with torch.autocast(logits.device.type, enabled=False):
            logits, boxes = _full(logits)[None], _full(boxes)[None]
            padded = PaddedTargets.from_list(targets, boxes.dtype)
            (terms,) = self._terms(self._set_pairs(logits, boxes, padded, num_boxes))
            return {name: term[0] for name, term in terms.items()}

    def _set_pairs(
        self, logits: Tensor, boxes: Tensor, targets: PaddedTargets, num_boxes: Tensor
    ) -> Pairs:
        """The pairs of Hungarian matching: logits [S, B, Q, C], boxes [S, B, Q, 4]."""
        query = self.matcher(logits, boxes, targets)  # [S, B, T]
        matched = query >= 0
        query = query.clamp(min=0)
        boxes = boxes.gather(2, query[..., None].expand(-1, -1, -1, 4))
        at_target = query * logits.shape[-1] + targets.labels
        target_logits = logits.flatten(2).gather(2, at_target)
        return Pairs(logits, target_logits, boxes, targets.boxes, matched, num_boxes)

    def _terms(self, *parts: Pairs) -> list[Terms]:
        """The weighted terms of each part, one value per set."""
        sizes = [part.matched.numel() for part in parts]
        terms: list[Terms] = [{} for _ in parts]
        for name, values in self._values(parts).items():
            for part, found, row in zip(parts, terms, values.split(sizes), strict=True):
                total = part.total(row)
                if name in CLASSIFICATION:
                    total = total + self._negative(name, part.logits).flatten(1).sum(1)
                found[name] = total * (self.weights[name] / part.num_boxes)
        return terms

    def _values(self, parts: Sequence[Pairs]) -> dict[str, Tensor]:
        """Loss name to a value per pair, of all parts in one row: for few pairs the number of
        operations counts, not their size."""
        boxes = torch.cat([part.boxes.flatten(0, -2) for part in parts])
        target_boxes = torch.cat(
            [part.target_boxes.expand_as(part.boxes).flatten(0, -2) for part in parts]
        )
        logits = torch.cat([part.target_logits.flatten() for part in parts])
        iou, giou = iou_and_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target_boxes))
        values = {}
        if "loss_vfl" in self.weights:
            values["loss_vfl"] = _varifocal(logits, iou.detach())
        if "loss_mal" in self.weights:
            values["loss_mal"] = _matchability(logits, iou.detach())
        if "loss_bbox" in self.weights:
            values["loss_bbox"] = (boxes - target_boxes).abs().sum(-1)
        if "loss_giou" in self.weights:
            values["loss_giou"] = 1 - giou
        for name in CLASSIFICATION & values.keys():
            values[name] = values[name] - self._negative(name, logits)
        return values

    def _negative(self, name: str, logits: Tensor) -> Tensor:
        """alpha p^gamma BCE(p, 0), of which the power has no gradient.

        Every logit counts as one; where it is matched, it is replaced, which needs no tensor of
        dense targets.
        """
        alpha, gamma = (self.alpha, self.gamma) if name == "loss_vfl" else (1.0, MAL_GAMMA)
        return alpha * logits.detach().sigmoid() ** gamma * F.softplus(logits)


def _dn_pairs(
    logits: Tensor, boxes: Tensor, groups: int, targets: PaddedTargets, num_boxes: Tensor
) -> Pairs:
    """The denoising queries, whose targets are known: the positives of every group.

    Without any box there is one padded slot, which does not count.
    """
    if targets.size == 0:
        logits, boxes = logits[:, :, :0], boxes[:, :, :0]
    sets, batch, _, classes = logits.shape
    slots = (sets, batch, groups, 2, targets.size)
    labels = targets.labels[:, None, :].expand(-1, groups, -1)
    index = labels[None, ..., None].expand(sets, -1, -1, -1, 1)
    return Pairs(
        logits,
        logits.view(*slots, classes)[:, :, :, 0].gather(-1, index)[..., 0],
        boxes.view(*slots, 4)[:, :, :, 0],
        targets.boxes[:, None],
        targets.valid[:, None].expand(sets, batch, groups, -1),
        num_boxes * groups,
    )


def build_criterion(cfg: ModelConfig, recipe: RecipeName = "rtdetr") -> Criterion:
    """The criterion that the spec's `model` section describes, and the recipe."""
    weights = {}
    if "vfl" in cfg.loss_types:
        weights["loss_mal" if recipe == "deim" else "loss_vfl"] = cfg.vfl_loss_coef
    if "boxes" in cfg.loss_types:
        weights["loss_bbox"] = cfg.bbox_loss_coef
        weights["loss_giou"] = cfg.giou_loss_coef
    matcher = Matcher(cfg.class_cost, cfg.bbox_cost, cfg.giou_cost)
    return Criterion(matcher, weights, cfg.alpha, cfg.gamma, cfg.aux_loss)


def _varifocal(logits: Tensor, iou: Tensor) -> Tensor:
    """iou BCE(p, iou): varifocal loss (Zhang et al. 2021, arXiv:2008.13367) of what is matched."""
    return iou * (F.softplus(logits) - iou * logits)


def _matchability(logits: Tensor, iou: Tensor) -> Tensor:
    """BCE(p, iou^gamma): matchability-aware loss (Huang et al. 2025, arXiv:2412.04234) of what is
    matched, which also a match of a low IoU has its full weight in."""
    return F.softplus(logits) - iou**MAL_GAMMA * logits


def _full(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _named(terms: Terms, suffixes: Sequence[str], kept: Sequence[int]) -> dict[str, Tensor]:
    """Split [S] terms into scalars called name + suffix, for the sets in `kept`."""
    values = {name: term.unbind() for name, term in terms.items()}
    return {name + suffixes[i]: values[name][i] for i in kept for name in values}
