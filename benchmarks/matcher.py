"""Our matching of a training step beside one matching per prediction set, in one run.

    python benchmarks/matcher.py [--boxes 7 100 500] [--batch N] [--sets N] [--queries N]
                                 [--repeats N] [--device DEVICE]

The peer is what RT-DETR's and transformers' losses do: for every prediction set (each decoder layer
and the encoder's queries) a matcher that compares all queries of the batch with all of its boxes,
brings that to the host, and solves the block of each image. Ours has the costs of pairs of one
image alone, of all sets in one copy. Both sides get the same predictions and boxes and take turns.
Printed are the median milliseconds, their ratio (below 1: ours is faster), the copies to the host,
and whether both assign the same. Ends with 1 where they do not.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from transformers.loss.loss_rt_detr import RTDetrHungarianMatcher

from rtdetr_slurm.engine.losses.matcher import Matcher
from rtdetr_slurm.engine.models.types import PaddedTargets
from rtdetr_slurm.vision.samples import Target

CLASSES = 80
OURS = Matcher(class_cost=2.0, bbox_cost=5.0, giou_cost=2.0)


class TheirConfig:
    """What transformers' matcher is made with: RT-DETR's own values."""

    matcher_class_cost, matcher_bbox_cost, matcher_giou_cost = 2.0, 5.0, 2.0
    use_focal_loss, matcher_alpha, matcher_gamma = True, 0.25, 2.0


def problem(
    sets: int, batch: int, queries: int, boxes: int, device: torch.device
) -> tuple[Tensor, Tensor, list[Target]]:
    """Predictions [S, B, Q, ...], and the boxes of each image: about `boxes` of them."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(sets, batch, queries, CLASSES, generator=draw)
    found = torch.rand(sets, batch, queries, 4, generator=draw) * 0.4 + 0.1
    targets: list[Target] = []
    for image in range(batch):
        count = max(1, round(boxes * (0.5 + image / max(batch - 1, 1))))  # half to one and a half
        labels = torch.randint(0, CLASSES, (count,), generator=draw).to(device)
        sides = torch.rand(count, 4, generator=draw).to(device) * 0.4 + 0.1
        targets.append({"labels": labels, "boxes": sides})
    return logits.to(device), found.to(device), targets


def per_set(logits: Tensor, boxes: Tensor, targets: list[Target]) -> list[list[dict[int, int]]]:
    """Of each set and image: box to query."""
    matcher = RTDetrHungarianMatcher(TheirConfig())
    named = [{"class_labels": one["labels"], "boxes": one["boxes"]} for one in targets]
    found = []
    for set_logits, set_boxes in zip(logits, boxes, strict=True):
        pairs = matcher({"logits": set_logits, "pred_boxes": set_boxes}, named)
        found.append([dict(zip(t.tolist(), q.tolist(), strict=True)) for q, t in pairs])
    return found


def together(logits: Tensor, boxes: Tensor, targets: list[Target]) -> Tensor:
    return OURS(logits, boxes, PaddedTargets.from_list(targets))


def copies_of(run: Callable[[], object]) -> int:
    """How often a run copies a tensor to the host."""
    count, original = 0, Tensor.cpu

    def counted(self: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return original(self)

    Tensor.cpu = counted  # type: ignore[method-assign,assignment]
    try:
        run()
    finally:
        Tensor.cpu = original  # type: ignore[method-assign]
    return count


def timed(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * (time.perf_counter() - start)


def same(ours: Tensor, theirs: list[list[dict[int, int]]]) -> bool:
    for rows, images in zip(ours.tolist(), theirs, strict=True):
        for row, pairs in zip(rows, images, strict=True):
            if {t: q for t, q in enumerate(row) if q >= 0} != pairs:
                return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, nargs="+", default=[7, 100, 500])
    for name, default in (("batch", 4), ("sets", 7), ("queries", 300), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device, equal = torch.device(args.device), True
    print(f"{args.sets} sets, {args.batch} images, {args.queries} queries, {device}")
    print("boxes   per set ms   ours ms   ratio   copies to the host   the same")
    for boxes in args.boxes:
        given = problem(args.sets, args.batch, args.queries, boxes, device)
        agree = same(together(*given), per_set(*given))
        pairs = [
            (timed(partial(per_set, *given), device), timed(partial(together, *given), device))
            for _ in range(args.repeats)
        ]
        theirs, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        copies = copies_of(partial(per_set, *given)), copies_of(partial(together, *given))
        print(
            f"{boxes:5}   {theirs:10.1f}   {ours:7.1f}   {ratio:5.2f}   "
            f"{copies[0]:7} and {copies[1]:<7}   {'yes' if agree else 'NO'}",
            flush=True,
        )
        equal = equal and agree
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
