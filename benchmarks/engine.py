"""What our engine costs beside Hugging Face transformers' RT-DETR, in one run.

    python benchmarks/engine.py [--parts PART …] [--repeats N] [--size PIXELS] [--backbones 18 50]
                                [--device DEVICE]

Both sides get the same images, boxes, optimizer and float32 precision, start from random weights
and have a backbone with frozen batch norms (transformers' default). Ours runs in channels-last
memory, and infers with the fused copy. The parts:

forward   inference of one image
step      forward, loss, backward and AdamW of a batch of 2
products  what of that convolutions and matrix products take by themselves
kept      megabytes that autograd keeps for the backward pass, without parameters
plain     a step and what it keeps, beside the same without what is computed again in the backward
          pass
calls     ATen calls of a step: as torch.profiler counts them, calls within calls included; and
          operators as they are sent on by autograd, without views, which is what a GPU launches
syncs     how often the host waits for the device in a step of ours
update    EMA and optimizer, as a share of the step of ours
compile   `engine.compile`: a step and what it keeps, beside the same without (and how long
          compiling takes: minutes)

Times are medians of turns that both sides take, in milliseconds; the last number is the median of
the turns' own ratios, which is steadier on a busy machine (below 1: ours is less).
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from counters import Operators, host_reads, kept_bytes, product_ms, profiled_calls
from torch import Tensor, nn
from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

from rtdetr_slurm.engine.losses import build_criterion
from rtdetr_slurm.engine.models import (
    attention,
    build_model,
    decoder,
    functions,
    hybrid_encoder,
    layers,
)
from rtdetr_slurm.engine.training.compilation import compile_detector, compiler
from rtdetr_slurm.engine.training.ema import Ema
from rtdetr_slurm.engine.training.objective import DetectionObjective
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.vision.samples import Target

PARTS = ["forward", "step", "products", "kept", "plain", "calls", "syncs", "update", "compile"]
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


class Trained:
    """A detector in training: the loss of a batch of 2, and a step."""

    def __init__(self, model: nn.Module, loss: Callable[[], Tensor]) -> None:
        self.model, self.loss = model, loss
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(self) -> None:
        self.loss().backward()
        self.update()

    def update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()


def our_training(depth: int, size: int, device: torch.device, *, compiled: bool = False) -> Trained:
    images = torch.rand(2, 3, size, size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    targets = random_targets(2, device)
    num_boxes = torch.tensor(2.0 * BOXES_PER_IMAGE, device=device)
    model = build_model(our_config(depth), NUM_CLASSES, freeze_norm=True).train()
    model = model.to(device, memory_format=torch.channels_last)
    if compiled:
        compile_detector(model)
    objective = DetectionObjective(model, build_criterion(our_config(depth)), "fp32")
    return Trained(model, lambda: objective(images, targets, num_boxes)[0])


def their_training(depth: int, size: int, device: torch.device) -> Trained:
    images = torch.rand(2, 3, size, size, device=device)
    targets = random_targets(2, device)
    labels = [{"class_labels": t["labels"], "boxes": t["boxes"]} for t in targets]
    model = their_model(depth).train().to(device)
    return Trained(model, lambda: model(images, labels=labels).loss)


def seconds(step: Step, device: torch.device) -> float:
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def show(name: str, ours: float, theirs: float, ratio: float | None = None) -> None:
    last = "" if ratio is None else f" ({ratio:.2f})"
    print(f"{name:<42}{ours:11,.0f} {theirs:14,.0f}   {ours / theirs:.2f}{last}", flush=True)


def compare(name: str, ours: Step, theirs: Step, repeats: int, device: torch.device) -> None:
    for step in (ours, theirs):
        seconds(step, device)
    pairs = [(seconds(ours, device), seconds(theirs, device)) for _ in range(repeats)]
    medians = [statistics.median(column) * 1e3 for column in zip(*pairs, strict=True)]
    show(name, *medians, statistics.median(a / b for a, b in pairs))


def kept(trained: Trained) -> float:
    """Megabytes."""
    with kept_bytes(trained.model) as found:
        loss = trained.loss()
    del loss
    return sum(found.values()) / 1e6


def operators(step: Step) -> int:
    with Operators() as counted:
        step()
    return counted.computing.total()


def update_share(ours: Trained, repeats: int, device: torch.device) -> tuple[float, float]:
    """Milliseconds of EMA and optimizer, and of a step with them."""
    ema = Ema(ours.model, decay=0.9999)

    def update() -> None:
        ours.update()
        ema.update()

    pairs = []
    for _ in range(repeats + 1):
        before = seconds(lambda: ours.loss().backward(), device)
        after = seconds(update, device)
        pairs.append((after * 1e3, (before + after) * 1e3))
    return tuple(statistics.median(column) for column in zip(*pairs[1:], strict=True))


def measure_training(depth: int, args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    ours = our_training(depth, args.size, args.device)
    theirs = their_training(depth, args.size, args.device)
    name = f"R{depth}-vd"
    if "step" in args.parts:
        compare(
            f"{name} training step, batch 2, ms", ours.step, theirs.step, args.repeats, args.device
        )
    if "products" in args.parts:
        spent = (product_ms(ours.step), product_ms(theirs.step))
        show(f"{name} its convolutions and products, ms", *spent)
    if "kept" in args.parts:
        show(f"{name} kept for backward, MB", kept(ours), kept(theirs))
    if "plain" in args.parts:
        measure_plain(name, ours, args)
    if "calls" in args.parts:
        for trained in (ours, theirs):
            trained.step()  # the optimizer's state and what is cached are made
        calls = (profiled_calls(ours.step), profiled_calls(theirs.step))
        show(f"{name} ATen calls of a step, profiler", *calls)
        show(f"{name} operators, no views", operators(ours.step), operators(theirs.step))
    if "syncs" in args.parts:
        ours.step()  # what is cached is made
        reads = host_reads(ours.step)
        print(f"{name + ' waits of the host in a step':<42}{len(reads):11}   {', '.join(reads)}")
    if "update" in args.parts:
        update, step = update_share(ours, args.repeats, args.device)
        print(
            f"{name + ' EMA and optimizer, ms':<42}{update:11.0f}   {update / step:.1%} of a step"
        )
    if "compile" in args.parts:
        measure_compiled(name, depth, ours, args)


@contextmanager
def plain_modules() -> Iterator[None]:
    """Steps as autograd keeps what it needs."""
    with ExitStack() as patches:
        for module in (attention, decoder, functions, hybrid_encoder, layers):
            patches.enter_context(patch.object(module, "written_out", lambda: False))
        yield


def measure_plain(name: str, ours: Trained, args: argparse.Namespace) -> None:
    def step() -> None:
        with plain_modules():
            ours.step()

    print(f"{'':<42}       ours          plain")
    compare(f"{name} training step, ms", ours.step, step, args.repeats, args.device)
    found = kept(ours)
    with plain_modules():
        show(f"{name} kept for backward, MB", found, kept(ours))


def measure_compiled(name: str, depth: int, plain: Trained, args: argparse.Namespace) -> None:
    with compiler(args.device):
        torch.manual_seed(0)
        compiled = our_training(depth, args.size, args.device, compiled=True)
        took = seconds(compiled.step, args.device)
        print(f"{name} compiled in {took:.0f} s:{'':<16}   compiled          plain")
        compare(f"{name} training step, ms", compiled.step, plain.step, args.repeats, args.device)
        show(f"{name} kept for backward, MB", kept(compiled), kept(plain))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--backbones", type=int, nargs="+", default=[18, 50], choices=[18, 50])
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=torch.device, default=torch.device(default))
    args = parser.parse_args()
    device = args.device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"torch {torch.__version__}, {where}, {torch.get_num_threads()} threads, {load}")
    print(f"{args.size} px, median of {args.repeats}")
    print(f"{'':<42}       ours   transformers   ratio (of the turns)")
    for depth in args.backbones:
        if "forward" in args.parts:
            torch.manual_seed(0)
            steps = forward_steps(depth, args.size, device)
            compare(f"R{depth}-vd forward, batch 1, ms", *steps, args.repeats, device)
        if set(args.parts) - {"forward"}:
            measure_training(depth, args)


if __name__ == "__main__":
    main()
