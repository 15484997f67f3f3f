"""Images per second that training is fed with, beside torchvision's dataset and transforms.

    python benchmarks/loader.py --data FOLDER [--workers N] [--batch-size N] [--rounds N]
                                [--images N] [--size PIXELS]

FOLDER has images/ and annotations.json. Both sides make the same augmentations (colours 0.5,
zoom-out 0.5, IoU crop 0.8, flip, resize) in as many loading processes, deliver batches of uint8,
and are made float32 in 0..1 by one thread of this process. They take turns, after a round that does
not count. What is printed is the median of the rounds, and of the rounds' own ratios. Ours distorts
colours on the training's device: `colours here` does that in this process, on the CPU; `colours
left` is what loading processes deliver where a GPU does it, and `mosaics` the same of an epoch of
which half of the images are made of four. With --workers 0 all is done by one thread, and the ratio
is that of the work.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from rtdetr_slurm.data.coco import Source, read_annotations
from rtdetr_slurm.engine.datasets.colours import distort
from rtdetr_slurm.engine.datasets.loaders import training_loader
from rtdetr_slurm.engine.datasets.sampler import DistributedBatchSampler
from rtdetr_slurm.engine.datasets.training_set import TrainingSet
from rtdetr_slurm.engine.datasets.transforms import Augment
from rtdetr_slurm.engine.recipe import Recipe
from rtdetr_slurm.spec.dataset import AugmentationConfig
from rtdetr_slurm.vision.preprocess import to_unit_range
from rtdetr_slurm.vision.samples import Batch
from rtdetr_slurm.vision.table import build_table

Round = Callable[[], int]
"""Goes through the images once; how many there were."""


def collate(samples: Sequence[tuple[Any, Any]]) -> tuple[torch.Tensor, list[Any]]:
    return torch.stack([image for image, _ in samples]), [target for _, target in samples]


def their_round(folder: Path, args: argparse.Namespace) -> Round:
    transforms = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomPhotometricDistort(p=args.colours),
            v2.RandomZoomOut(fill=0, p=0.5),
            v2.RandomApply([v2.RandomIoUCrop()], p=0.8),
            v2.SanitizeBoundingBoxes(min_size=1),
            v2.RandomHorizontalFlip(),
            v2.Resize((args.size, args.size), antialias=True),
            v2.SanitizeBoundingBoxes(min_size=1),
        ]
    )
    data = CocoDetection(folder / "images", folder / "annotations.json", transforms=transforms)
    wrapped = wrap_dataset_for_transforms_v2(data, target_keys=["boxes", "labels"])
    loader: DataLoader[Any] = DataLoader(
        Subset(wrapped, range(min(args.images, len(data)))),
        args.batch_size,
        shuffle=True,
        num_workers=args.workers,
        collate_fn=collate,
        persistent_workers=args.workers > 0,
    )
    return lambda: sum(len(to_unit_range(pixels)) for pixels, _ in loader)


def our_rounds(folder: Path, args: argparse.Namespace) -> tuple[Round, Round, Round]:
    """With the colours, without, and without in a dense epoch."""
    annotations = read_annotations(folder / "annotations.json")
    table = build_table([Source(folder / "images", annotations)], annotations.categories)
    table = table.spread(args.images)
    cfg = AugmentationConfig(
        train_spatial_size=[args.size, args.size],
        distortion_prob=args.colours,
        iou_crop_prob=0.8,
    )
    every_epoch_dense = Recipe("deim", 10**6)
    order = DistributedBatchSampler(len(table), args.batch_size, 0, 1, 0)

    def loader(recipe: Recipe) -> DataLoader[Batch]:
        data = TrainingSet(table, Augment(cfg), 0, replace_bad=False, recipe=recipe)
        return training_loader(data, order, workers=args.workers, pin_memory=False)

    def all_of_it(
        batches: DataLoader[Batch], finish: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> int:
        order.set_position(order.epoch + 1)
        return sum(len(finish(to_unit_range(one.pixels), one.colours)) for one in batches)

    plain, dense = loader(Recipe()), loader(every_epoch_dense)
    order.set_position(every_epoch_dense.dense.start)
    return (
        lambda: all_of_it(plain, distort),
        lambda: all_of_it(plain, lambda images, _: images),
        lambda: all_of_it(dense, lambda images, _: images),
    )


def rate(one: Round) -> float:
    start = time.perf_counter()
    return one() / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--colours", type=float, default=0.5, help="probability of each distortion")
    args = parser.parse_args()
    torch.set_num_threads(1)
    here, left, mosaics = our_rounds(args.data, args)
    sides = {
        "torchvision": their_round(args.data, args),
        "colours here": here,
        "colours left": left,
        "mosaics": mosaics,
    }
    for one in sides.values():
        one()
    rates = [{name: rate(one) for name, one in sides.items()} for _ in range(args.rounds)]
    print(f"{args.images} images, {args.workers} loading processes, {args.size} pixels")
    print(f"{'':<14}images/s    ratio")
    for name in sides:
        median = statistics.median(one[name] for one in rates)
        ratio = statistics.median(one[name] / one["torchvision"] for one in rates)
        print(f"{name:<14}{median:8.1f}  {ratio:7.2f}")


if __name__ == "__main__":
    main()
