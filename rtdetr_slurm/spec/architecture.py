"""What a file of weights tells of the detector that they are of, and what a spec says otherwise.
Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from rtdetr_slurm.contract import HUGGING_FACE_CONFIG, HUGGING_FACE_PROCESSOR
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.model_check import Problem
from rtdetr_slurm.resolved_spec import value_at
from rtdetr_slurm.spec.backbones import size_with, stage_widths
from rtdetr_slurm.spec.hugging_face import detector_of, image_size_of
from rtdetr_slurm.spec.model import Backbone, ModelConfig
from rtdetr_slurm.spec.tensor_names import (
    CLASSIFIER,
    COUNTER,
    backbone_tensor_names,
    own_tensor_names,
)
from rtdetr_slurm.yaml_source import KeyPath, show

Shape = tuple[int, ...]
Part = Literal["detector", "backbone"]

_UNSEEN = ("use_encoder_idx", "nheads", "enc_act", "act", "pe_temperature")
"""Fields of `model` that change what weights compute, and that their shapes do not show."""
_COCO_CLASSES = 80
_LEVEL = re.compile(r"backbone\.levels\.(\d)\.")
_PROJECTION = re.compile(r"encoder\.input_proj\.\d+\.conv\.weight")


@dataclass(frozen=True)
class Described:
    """What is known of the detector that weights are of.

    Attributes:
        model: field of `model` to its value; of `backbone` to all that it may be.
        num_classes: of its class heads; None where there are none.
        points: sampling points of its decoder's attention over all levels.
        classes: id to name, as config.json has them.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    points: int | None = None
    classes: dict[int, str] = field(default_factory=dict)


def describe(
    shapes: Mapping[str, Shape],
    spec: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    processor: Mapping[str, Any] | None = None,
    part: Part = "detector",
    *,
    quantized: bool = False,
) -> Described:
    """The detector that a file's weights are of.

    Args:
        shapes: of its tensors, by their names in the file.
        spec: that the file holds, not checked; None where it holds none.
        config: the config.json beside it, where there is one.
        processor: the preprocessor_config.json there, where the weights are used as they are.
        part: of a detector that the file is needed for.
        quantized: they are of one that `quantize` has left.

    Raises:
        RequestError: config.json or preprocessor_config.json is of what this engine does not have;
            each line begins with that name.
    """
    _, names = (backbone_tensor_names if part == "backbone" else own_tensor_names)(shapes)
    own = {name: shapes[theirs] for theirs, name in names.items()}
    if quantized:  # its batch norms are in convolutions, which have a bias for them, and scales
        own = {name: shape for name, shape in own.items() if name.endswith(".weight")}
    backbone = dict(_backbone(own))
    if part == "backbone":
        return Described(backbone)
    model = {**backbone, **dict(_encoder(own, backbone)), **dict(_decoder(own))}
    with _named(HUGGING_FACE_CONFIG):
        found = None if config is None else detector_of(config)
    with _named(HUGGING_FACE_PROCESSOR):
        image_size_of(processor or {})
    said = value_at(spec or {}, "model") if found is None else found.said
    if isinstance(said, Mapping):
        model |= {name: said[name] for name in _UNSEEN if name in said}
    offsets = _rows(own, "decoder.decoder.layers.0.cross_attn.sampling_offsets.weight")
    return Described(
        model,
        num_classes=_rows(own, "decoder.enc_score_head.weight"),
        points=offsets and offsets // 16,  # of each of eight heads, x and y
        classes={} if found is None else found.classes,
    )


@contextmanager
def _named(file: str) -> Iterator[None]:
    try:
        yield
    except RequestError as error:
        lines = str(error).splitlines()
        raise RequestError("\n".join(f"{file}: {line}" for line in lines)) from None


def weights_problems(
    model: ModelConfig,
    num_classes: int | None,
    described: Described,
    whose: str,
    at: KeyPath = ("model",),
) -> Iterator[Problem]:
    """Why weights are not those of a spec's detector.

    Args:
        num_classes: of the spec; None where class heads of another size do no harm.
        whose: the weights, in words.
        at: where the spec has `model`.
    """
    yield from _contradictions(model, described, whose, at)
    if num_classes is not None:
        yield from _class_contradiction(num_classes, described, whose)


def _contradictions(
    model: ModelConfig, described: Described, whose: str, at: KeyPath
) -> Iterator[Problem]:
    for name, there in described.model.items():
        found = getattr(model, name)
        if name == "backbone":
            if found not in there:
                has = " or ".join(there) or "one that this version does not have"
                yield Problem((*at, name), f"found {found}; {whose} has {has}; allowed: the same")
        elif _comparable(model, name) != there:
            yield Problem(
                (*at, name), f"found {show(found)}; {whose} has {show(there)}; allowed: the same"
            )
    levels = len(model.return_interm_indices)
    if described.points not in (None, 4 * levels):
        yield Problem(
            at,
            f"{whose} samples {described.points} points over {levels} levels in its decoder's "
            "attention; allowed: 4 on each, which is all that this version has",
        )


def _class_contradiction(num_classes: int, described: Described, whose: str) -> Iterator[Problem]:
    there = described.num_classes
    if there in (None, num_classes):
        return
    coco = ""
    if there == _COCO_CLASSES:
        coco = (
            "; the published weights count COCO's 80 classes from 0 to 79, as "
            "dataset.remap_mscoco_category does with its annotations"
        )
    yield Problem(
        ("dataset", "num_classes"),
        f"found {num_classes}; {whose} has class heads for {there} classes; allowed: {there}, for "
        "data with the same ids, or a training that starts from these weights "
        f"(train.pretrained_model_path), which begins its class heads anew{coco}",
    )


def _comparable(model: ModelConfig, name: str) -> Any:
    """A value as far as a file can tell it."""
    value = getattr(model, name)
    if name == "expansion" and model.feat_channels:
        width = model.feat_channels[0]
        return int(width * value) / width
    return value


def _backbone(own: Mapping[str, Shape]) -> Iterator[tuple[str, Any]]:
    """The backbones that have these tensors and least beside them: a deep one has all that a
    shallow one has."""
    tensors = {
        name.removeprefix("backbone."): shape
        for name, shape in own.items()
        if name.startswith("backbone.") and _is_of_stages(name)
    }
    if not tensors:
        return
    sizes = {
        name: size for name in get_args(Backbone) if (size := size_with(name, tensors)) is not None
    }
    least = min(sizes.values(), default=0)
    yield "backbone", tuple(name for name, size in sizes.items() if size == least)


def _is_of_stages(name: str) -> bool:
    """Whether a backbone's tensor is neither a counter, nor of its classifier or what follows the
    stages."""
    return not (name.endswith(COUNTER) or CLASSIFIER.match(name) or _LEVEL.match(name))


def _encoder(own: Mapping[str, Shape], backbone: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    projections = [shape for name, shape in own.items() if _PROJECTION.fullmatch(name)]
    if not projections or not all(len(shape) == 4 for shape in projections):
        return
    width = projections[0][0]
    yield "feat_channels", [shape[0] for shape in projections]
    yield "num_feature_levels", len(projections)
    stages = sorted({int(match[1]) for name in own if (match := _LEVEL.match(name))})
    if not stages and (names := backbone.get("backbone")):
        widths, read = stage_widths(names[0]), [shape[1] for shape in projections]
        stages = [widths.index(one) for one in read] if {*read} <= {*widths} else []
    if stages:
        yield "return_interm_indices", stages
    if feed_forward := _rows(own, "encoder.encoder.0.layers.0.linear1.weight"):
        yield "enc_layers", _count(own, r"encoder\.encoder\.0\.layers\.(\d+)\.")
        yield "dim_feedforward", feed_forward
    if hidden := _rows(own, "encoder.fpn_blocks.0.conv1.conv.weight"):
        yield "expansion", hidden / width
        blocks = _count(own, r"encoder\.fpn_blocks\.0\.bottlenecks\.(\d+)\.")
        yield "depth_mult", blocks / 3


def _decoder(own: Mapping[str, Shape]) -> Iterator[tuple[str, Any]]:
    if width := _rows(own, "decoder.input_proj.0.conv.weight"):
        yield "hidden_dim", width
    if layers := _count(own, r"decoder\.decoder\.layers\.(\d+)\."):
        yield "dec_layers", layers


def _rows(own: Mapping[str, Shape], name: str) -> int | None:
    """The first side of a tensor; None where there is none."""
    shape = own.get(name)
    return shape[0] if shape else None


def _count(own: Mapping[str, Shape], pattern: str) -> int:
    """How many modules of a list there are."""
    return len({match[1] for name in own if (match := re.match(pattern, name))})
