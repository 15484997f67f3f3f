"""Losses of classes and boxes on every decoder layer, the encoder's selection and denoising."""

from __future__ import annotations

from collections.abc import Sequence
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

Terms: TypeAlias = dict[str, Tensor]
"""Loss name to [S], one value per prediction set."""


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
            losses = _named(self._set_terms(logits, boxes, padded, num_boxes), names, kept)
            unused = 0 * (logits.sum() + boxes.sum())
            if "dn_logits" in outputs:
                logits, boxes = _full(outputs["dn_logits"]), _full(outputs["dn_boxes"])
                if "dn_slots" in outputs:
                    padded = padded.take(outputs["dn_slots"])
                terms = self._dn_terms(logits, boxes, outputs["dn_groups"], padded, num_boxes)
                names = [f"_dn_{i}" for i in range(layers)]
                losses |= _named(terms, names, range(layers) if self.aux_loss else (layers - 1,))
                unused = unused + 0 * (logits.sum() + boxes.sum())
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
            terms = self._set_terms(logits, boxes, padded, num_boxes)
            return {name: term[0] for name, term in terms.items()}

    def _set_terms(
        self, logits: Tensor, boxes: Tensor, targets: PaddedTargets, num_boxes: Tensor
    ) -> Terms:
        """Terms of the Hungarian-matched sets: logits [S, B, Q, C], boxes [S, B, Q, 4]."""
        query = self.matcher(logits, boxes, targets)  # [S, B, T]
        matched = query >= 0
        query = query.clamp(min=0)
        boxes = boxes.gather(2, query[..., None].expand(-1, -1, -1, 4))
        at_target = query * logits.shape[-1] + targets.labels
        target_logits = logits.flatten(2).gather(2, at_target)
        return self._terms(logits, target_logits, boxes, targets.boxes, matched, num_boxes)

    def _dn_terms(
        self,
        logits: Tensor,
        boxes: Tensor,
        groups: int,
        targets: PaddedTargets,
        num_boxes: Tensor,
    ) -> Terms:
        """Terms of the denoising queries, whose targets are known: the positives of every group.

        Without any box there is one padded slot, whose terms are zero.
        """
        sets, batch, _, classes = logits.shape
        if targets.size == 0:
            empty = 0 * logits.sum(dim=(1, 2, 3))
            return dict.fromkeys(self.weights, empty)
        slots = (sets, batch, groups, 2, targets.size)
        labels = targets.labels[:, None, :].expand(-1, groups, -1)
        index = labels[None, ..., None].expand(sets, -1, -1, -1, 1)
        target_logits = logits.view(*slots, classes)[:, :, :, 0].gather(-1, index)[..., 0]
        return self._terms(
            logits,
            target_logits,
            boxes.view(*slots, 4)[:, :, :, 0],
            targets.boxes[:, None],
            targets.valid[:, None].expand(sets, batch, groups, -1),
            num_boxes * groups,
        )

    def _terms(
        self,
        logits: Tensor,
        target_logits: Tensor,
        boxes: Tensor,
        target_boxes: Tensor,
        matched: Tensor,
        num_boxes: Tensor,
    ) -> Terms:
        """Weighted terms, one value per set.

        Args:
            logits: [S, B, N, C], of all queries.
            target_logits: [S, ...], of the matched queries at their target's class.
            boxes: [S, ..., 4], of the matched queries.
            target_boxes: broadcasts to `boxes`.
            matched: bool [S, ...], False where there is no pair after all.
            num_boxes: what the sums are divided by.
        """
        iou, giou = iou_and_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target_boxes))
        terms = {}
        if "loss_vfl" in self.weights:
            terms["loss_vfl"] = self._varifocal(logits, target_logits, iou.detach(), matched)
        if "loss_mal" in self.weights:
            terms["loss_mal"] = _matchability(logits, target_logits, iou.detach(), matched)
        if "loss_bbox" in self.weights:
            distance = (boxes - target_boxes).abs().sum(-1)
            terms["loss_bbox"] = _sum_where(matched, distance)
        if "loss_giou" in self.weights:
            terms["loss_giou"] = _sum_where(matched, 1 - giou)
        return {name: term * (self.weights[name] / num_boxes) for name, term in terms.items()}

    def _varifocal(self, logits: Tensor, positive: Tensor, iou: Tensor, matched: Tensor) -> Tensor:
        """Varifocal loss (Zhang et al. 2021, arXiv:2008.13367), summed per set.

        Every logit counts as a negative, alpha p^gamma BCE(p, 0); where it is matched, that is
        replaced by iou BCE(p, iou). This needs no tensor of dense targets.
        """
        as_positive = iou * (F.softplus(positive) - iou * positive)
        correction = as_positive - _negative(positive, self.gamma, self.alpha)
        negatives = _negative(logits, self.gamma, self.alpha)
        return negatives.flatten(1).sum(1) + _sum_where(matched, correction)


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


def _matchability(logits: Tensor, positive: Tensor, iou: Tensor, matched: Tensor) -> Tensor:
    """Matchability-aware loss (Huang et al. 2025, arXiv:2412.04234), summed per set.

    Every logit counts as a negative, p^gamma BCE(p, 0); where it is matched, that is replaced by
    BCE(p, iou^gamma), which also a match of a low IoU has its full weight in.
    """
    as_positive = F.softplus(positive) - iou**MAL_GAMMA * positive
    correction = as_positive - _negative(positive, MAL_GAMMA)
    return _negative(logits, MAL_GAMMA).flatten(1).sum(1) + _sum_where(matched, correction)


def _negative(logits: Tensor, gamma: float, alpha: float = 1.0) -> Tensor:
    """alpha p^gamma BCE(p, 0), of which the power has no gradient."""
    return alpha * logits.detach().sigmoid() ** gamma * F.softplus(logits)


def _full(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _sum_where(mask: Tensor, values: Tensor) -> Tensor:
    """Sum of the values where the mask holds, over everything but the first dimension."""
    return torch.where(mask, values, 0).flatten(1).sum(1)


def _named(terms: Terms, suffixes: Sequence[str], kept: Sequence[int]) -> dict[str, Tensor]:
    """Split [S] terms into scalars called name + suffix, for the sets in `kept`."""
    values = {name: term.unbind() for name, term in terms.items()}
    return {name + suffixes[i]: values[name][i] for i in kept for name in values}
