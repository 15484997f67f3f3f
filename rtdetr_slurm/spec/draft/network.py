"""Choices about data and network. One small function for what belongs together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rtdetr_slurm.spec.dataset import scales_around
from rtdetr_slurm.spec.draft.choices import Choices
from rtdetr_slurm.spec.draft.facts import DataFacts, Hardware
from rtdetr_slurm.spec.draft.start import DETECTOR, SIZE, start_of
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.spec.sizes import count_cells

_EVAL_SIZE = "dataset.augmentation.eval_spatial_size"
_CELL = 8
"""Stride of the finest feature map, in pixels."""
_PRECISE_SIDE = 320
"""With less, boxes get imprecise."""
_SIDES = (128, 1280)
_QUERIES = (100, 900)
_SMALL_SET = 5000
"""Training images; the published training had 118 thousand."""
_PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "resnet_18": {"model.expansion": 0.5, "model.dec_layers": 3},
    "resnet_34": {"model.expansion": 0.5, "model.dec_layers": 4},
    "resnet_101": {"model.feat_channels": [384, 384, 384], "model.dim_feedforward": 2048},
}
"""What the published detectors have beside their backbone; that of R50 is the default."""


def sources(choices: Choices, facts: DataFacts, _: Hardware) -> None:
    choices.choose("job.action", "train", "What to do; more with --then or job.then.")
    entries = {
        split: {"image_dir": images, "json_file": annotations}
        for split, (images, annotations) in facts.sources.items()
    }
    choices.choose(
        "dataset.train_data_sources",
        [entries["train"]],
        f"{facts.images} images with {facts.boxes} objects.",
    )
    if "val" in entries:
        choices.choose(
            "dataset.val_data_sources",
            entries["val"],
            f"{facts.scored} images, scored while training: by them the best checkpoint is chosen.",
        )
    if held_out := entries.get("test", entries.get("val")):
        reason = (
            "What evaluate scores: images that neither training nor the choice of the checkpoint "
            "has seen."
            if "test" in entries
            else "What evaluate scores. There is no test set: these have chosen the checkpoint."
        )
        choices.choose("dataset.test_data_sources", held_out, reason)


def classes(choices: Choices, facts: DataFacts, _: Hardware) -> None:
    if facts.is_mscoco:
        choices.choose(
            "dataset.remap_mscoco_category",
            True,
            "The category ids are the 80 of MS COCO, with its gaps: as 0..79 no output is unused.",
        )
        choices.choose("dataset.num_classes", 80, "MS COCO's classes without its gaps.")
        return
    largest = max(facts.classes)
    choices.choose(
        "dataset.num_classes",
        largest + 1,
        f"The largest category id + 1: ids are used as class indices, and {largest} is "
        f"{facts.classes[largest]!r}.",
    )
    used = [number for number in facts.classes if facts.boxes_of.get(number)]
    named = ", ".join(f"{number} {facts.classes[number]}" for number in used[:12])
    unused = [name for number, name in facts.classes.items() if number not in used]
    left_out = f" Without a box, and so left out: {', '.join(unused[:12])}." if unused else ""
    choices.choose(
        "dataset.eval_class_ids",
        used,
        f"The classes that have boxes: {named}{', ...' if len(used) > 12 else ''}.{left_out}",
    )


def backbone(choices: Choices, facts: DataFacts, hardware: Hardware) -> None:
    kind, name = start_of(choices, hardware)
    if name is not None:
        choices.choose(
            "model.backbone",
            name,
            f"The site profile has a pretrained {kind} of it (models), which submit takes.",
        )
    elif kind == "nothing" and facts.images < _SMALL_SET:
        choices.choose(
            "model.backbone",
            "resnet_18",
            f"No pretrained weights are named, and {facts.images} images are few to train a large "
            "backbone from random ones. With weights (train.pretrained_model_path, "
            "model.pretrained_backbone_path) resnet_50 is better.",
        )
    name = str(choices.value("model.backbone")).removesuffix("_vd")
    if not choices.is_given(DETECTOR):  # which may be of any form
        for field, value in _PUBLISHED.get(name, {}).items():
            if hardware.engine == "rtdetr" or isinstance(value, int | list):  # TAO's has no halves
                choices.choose(field, value, f"As the published detector with {name} has it.")


def size(choices: Choices, facts: DataFacts, _: Hardware) -> None:
    if facts.small_side is not None:
        wanted = 2 * _CELL / facts.small_side
        side = 32 * math.ceil(wanted / 32)
        most = min(max(32 * math.ceil(facts.image_side / 32), _SIDES[0]), _SIDES[1])
        chosen = min(max(side, _PRECISE_SIDE), most)
        reason = (
            f"Nine in ten objects are then at least {facts.small_side * chosen:.0f} pixels wide "
            f"and high; {2 * _CELL}, two cells of the finest feature map, are wanted"
        )
        limit = "as large as the images are" if most < _SIDES[1] else "the most that is chosen"
        if chosen < side:
            reason += f", which would take {side}: {chosen} is {limit}. Tiles of the images help."
        elif chosen > side:
            reason += f", for which {side} would do. With few pixels boxes get imprecise, and "
            reason += f"{chosen} is {limit}." if chosen == most else f"{chosen} is not few."
        else:
            reason += "."
        choices.choose(SIZE, [chosen, chosen], reason)
    choices.choose(_EVAL_SIZE, choices.value(SIZE), "The size that is trained, in its middle.")
    if choices.is_given("export") or choices.value(_EVAL_SIZE) != [640, 640]:
        height, width = choices.value(_EVAL_SIZE)
        reason = "What is exported takes images of the size that was trained."
        choices.choose("export.input_height", height, reason)
        choices.choose("export.input_width", width, reason)


def queries(choices: Choices, facts: DataFacts, _: Hardware) -> None:
    least, most = _QUERIES
    number = min(max(least, 50 * math.ceil(2 * facts.fullest / 50)), most)
    strides = ModelConfig(feat_strides=choices.value("model.feat_strides"))
    number = min(number, count_cells(strides, _smallest_size(choices)))
    choices.choose(
        "model.num_queries",
        number,
        f"The fullest image has {facts.fullest} objects: twice as many queries find them, and each "
        f"more costs time. COCO's metrics count {least} detections of an image.",
    )
    number = choices.value("model.num_queries")
    choices.choose("model.num_select", number, "Every query may become a detection.")
    if facts.fullest > choices.value("model.dn_number"):
        choices.choose(
            "model.dn_number",
            facts.fullest,
            "So many objects has the fullest image: with fewer some are left out of the denoising.",
        )


def _smallest_size(choices: Choices) -> tuple[int, int]:
    """Height and width of the smallest images that the detector sees."""
    scales = "dataset.augmentation.multi_scales"
    given = choices.value(scales) if choices.is_given(scales) else None
    sizes = [choices.value(SIZE), choices.value(_EVAL_SIZE)]
    sizes += scales_around(*choices.value(SIZE)) if given is None else given
    pairs = [(each, each) if isinstance(each, int) else (each[0], each[1]) for each in sizes]
    return min(pairs, key=math.prod)
