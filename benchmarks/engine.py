"""Our forward pass and training step beside Hugging Face transformers', in one run.

    python benchmarks/engine.py [--repeats N] [--size PIXELS] [--backbones 18 50] [--device DEVICE]

Both sides get the same images, boxes, optimizer and float32 precision, start from random weights,
have a backbone with frozen batch norms (transformers' default), and take turns, so that what else
the machine does hits both. Ours runs in channels-last memory, and infers with the fused copy. What
is printed is the median of the turns after one warm-up each, their ratio (below 1: ours is faster),
and the median of the turns' own ratios, which is steadier on a busy machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

from rtdetr_slurm.engine.losses import build_criterion
from rtdetr_slurm.engine.models import build_model
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.vision.samples import Target

NUM_CLASSES = 80
BOXES_PER_IMAGE = 7  # the average of COCO
STAGES = ["stage2", "stage3", "stage4"]


def their_model(depth: int) -> RTDetrForObjectDetection:
    if depth == 18:
        backbone = RTDetrResNetConfig(
            hidden_sizes=[64, 128, 256, 512],
            depths=[2, 2, 2, 2],
            layer_type="basic",
            out_features=STAGES,
        )
        config = RTDetrConfig(
            backbone_config=backbone,
            encoder_in_channels=[128, 256, 512],
            hidden_expansion=0.5,
            decoder_layers=3,
            num_labels=NUM_CLASSES,
        )
    else:
        backbone = RTDetrResNetConfig(depths=[3, 4, 6, 3], out_features=STAGES)
        config = RTDetrConfig(backbone_config=backbone, num_labels=NUM_CLASSES)
    return RTDetrForObjectDetection(config)


def our_config(depth: int) -> ModelConfig:
    small = {"expansion": 0.5, "dec_layers": 3} if depth == 18 else {}
    return ModelConfig.model_validate({"backbone": f"resnet_{depth}_vd", **small})


def random_targets(batch: int, device: torch.device) -> list[Target]:
    generator = torch.Generator().manual_seed(0)
    targets: list[Target] = []
    for _ in range(batch):
        labels = torch.randint(NUM_CLASSES, (BOXES_PER_IMAGE,), generator=generator)
        centres = torch.rand(BOXES_PER_IMAGE, 2, generator=generator) * 0.6 + 0.2
        sizes = torch.rand(BOXES_PER_IMAGE, 2, generator=generator) * 0.35 + 0.05
        boxes = torch.cat([centres, sizes], dim=1)
        targets.append({"labels": labels.to(device), "boxes": boxes.to(device)})
    return targets


Step = Callable[[], object]


def forward_steps(depth: int, size: int, device: torch.device) -> tuple[Step, Step]:
    """Batch 1, eval mode: (ours, theirs)."""
    images = torch.rand(1, 3, size, size, device=device)
    ours = build_model(our_config(depth), NUM_CLASSES).fuse()
    ours = ours.to(device, memory_format=torch.channels_last)
    theirs = their_model(depth).eval().to(device)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    return (
        torch.inference_mode()(lambda: ours(channels_last)),
        torch.inference_mode()(lambda: theirs(images)),
    )


def training_steps(depth: int, size: int, device: torch.device) -> tuple[Step, Step]:
    """Batch 2, forward + loss + backward + AdamW: (ours, theirs)."""
    images = torch.rand(2, 3, size, size, device=device)
    targets = random_targets(2, device)
    num_boxes = torch.tensor(2.0 * BOXES_PER_IMAGE, device=device)

    ours = build_model(our_config(depth), NUM_CLASSES, freeze_norm=True).train()
    ours = ours.to(device, memory_format=torch.channels_last)
    criterion = build_criterion(our_config(depth))
    our_optimizer = torch.optim.AdamW(ours.parameters(), lr=1e-4, fused=True)
    channels_last = images.contiguous(memory_format=torch.channels_last)

    theirs = their_model(depth).train().to(device)
    labels = [{"class_labels": t["labels"], "boxes": t["boxes"]} for t in targets]
    their_optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-4, fused=True)

    def our_step() -> None:
        terms = criterion(ours(channels_last, targets), targets, num_boxes)
        torch.stack(list(terms.values())).sum().backward()
        our_optimizer.step()
        our_optimizer.zero_grad()

    def their_step() -> None:
        theirs(images, labels=labels).loss.backward()
        their_optimizer.step()
        their_optimizer.zero_grad()

    return our_step, their_step


def seconds(step: Step, device: torch.device) -> float:
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(name: str, ours: Step, theirs: Step, repeats: int, device: torch.device) -> None:
    for step in (ours, theirs):
        seconds(step, device)
    pairs = [(seconds(ours, device), seconds(theirs, device)) for _ in range(repeats)]
    our_median, their_median = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    milliseconds = f"{our_median * 1e3:9.0f} {their_median * 1e3:14.0f}"
    print(f"{name:<34}{milliseconds}   {our_median / their_median:.2f} ({ratio:.2f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--backbones", type=int, nargs="+", default=[18, 50], choices=[18, 50])
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=torch.device, default=torch.device(default))
    args = parser.parse_args()
    device = args.device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {where}, {torch.get_num_threads()} threads, {args.size} px")
    print(f"{'median of ' + str(args.repeats):<34}  ours ms   transformers   ratio (of the pairs)")
    for depth in args.backbones:
        torch.manual_seed(0)
        steps = forward_steps(depth, args.size, device)
        compare(f"R{depth}-vd forward, batch 1", *steps, args.repeats, device)
    for depth in args.backbones:
        torch.manual_seed(0)
        steps = training_steps(depth, args.size, device)
        compare(f"R{depth}-vd training step, batch 2", *steps, args.repeats, device)


if __name__ == "__main__":
    main()
