"""What a sweep tries: one checkpoint with fewer decoder layers, fewer queries, smaller images, and
in other precisions. Pure."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeVar, get_args

from rtdetr_slurm.contract import RUNTIMES
from rtdetr_slurm.deploy.record import Precision
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.spec.sizes import Size, count_cells

T = TypeVar("T")
_STRIDE = 32


@dataclass(frozen=True)
class Shape:
    """A graph that is made of a checkpoint.

    Attributes:
        eval_idx: decoder layer that is read out, from 0.
        size: (height, width) of its images.
    """

    eval_idx: int
    num_queries: int
    size: Size

    def __str__(self) -> str:
        return f"{self.size[0]}x{self.size[1]}-q{self.num_queries}-e{self.eval_idx}"

    def model(self, trained: ModelConfig, num_classes: int) -> ModelConfig:
        """The detector that it is, of the one that was trained."""
        most = self.num_queries * num_classes
        return trained.model_copy(
            update={
                "eval_idx": self.eval_idx,
                "num_queries": self.num_queries,
                "num_select": min(trained.num_select, most),
            }
        )


@dataclass(frozen=True)
class Asked:
    """What is to be tried; of each that is empty, what the spec has."""

    eval_idx: Sequence[int] = ()
    num_queries: Sequence[int] = ()
    size: Sequence[Size] = ()
    precision: Sequence[Precision] = ()

    def precisions(self, experiment: ExperimentConfig) -> list[Precision]:
        """Each once."""
        return [*dict.fromkeys(self.precision or [experiment.gen_trt_engine.tensorrt.data_type])]

    def shapes(self, experiment: ExperimentConfig) -> list[Shape]:
        """All combinations, each once.

        Raises:
            RequestError: the detector has no such layer, or an image no room for the queries.
        """
        model, export = experiment.model, experiment.export
        if wrong := [idx for idx in self.eval_idx if idx >= model.dec_layers]:
            raise RequestError(
                f"--eval-idx: found {wrong[0]}; allowed: 0..{model.dec_layers - 1}, the decoder's "
                "layers"
            )
        layers = self.eval_idx or [model.eval_idx % model.dec_layers]
        sizes = self.size or [(export.input_height, export.input_width)]
        made = dict.fromkeys(
            Shape(*one) for one in product(layers, self.num_queries or [model.num_queries], sizes)
        )
        for shape in made:
            cells = count_cells(model, shape.size)
            if shape.num_queries > cells:
                raise RequestError(
                    f"--num-queries: found {shape.num_queries}; allowed: <= {cells}, the cells of "
                    f"the feature maps of an image of {shape.size[0]}x{shape.size[1]} pixels"
                )
        return [*made]


def parser() -> argparse.ArgumentParser:
    """Of the command line after `rtdetr-deploy sweep`."""
    made = argparse.ArgumentParser(
        prog="rtdetr-deploy sweep",
        description="Score and time export.checkpoint at several sizes, without training: each "
        "combination as a file of its own, and the best of them in report.html. It takes the spec "
        "of an export, with images to score on.",
    )
    made.add_argument("-e", "--experiment_spec_file", dest="spec", type=Path, required=True)
    made.add_argument("overrides", nargs="*", metavar="key=value")
    for name, read, said in (
        ("eval-idx", _each(_number(0)), "decoder layers to read out, from 0, such as 2,3,5"),
        ("num-queries", _each(_number(1)), "such as 100,200,300"),
        ("size", _each(_size), "height x width of images, such as 480x480,640x640"),
        ("precision", _each(_precision), f"of {', '.join(get_args(Precision))}"),
    ):
        made.add_argument(f"--{name}", type=read, default=(), metavar="A,B,...", help=said)
    made.add_argument(
        "--runtime",
        choices=RUNTIMES,
        help="what runs them (default: TensorRT where there is a GPU, else ONNX Runtime)",
    )
    return made


def _each(read: Callable[[str], T]) -> Callable[[str], list[T]]:
    def each(text: str) -> list[T]:
        return [read(part.strip()) for part in text.split(",")]

    return each


def _number(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"found {text!r}; allowed: whole numbers >= {least}")
        return int(text)

    return number


def _size(text: str) -> Size:
    height, _, width = text.partition("x")
    sides = [int(side) if side.isdecimal() else 0 for side in (height, width or height)]
    if any(side < _STRIDE or side % _STRIDE for side in sides):
        raise argparse.ArgumentTypeError(
            f"found {text!r}; allowed: height x width in multiples of {_STRIDE}, such as 480x640"
        )
    return sides[0], sides[1]


def _precision(text: str) -> Precision:
    for known in _known():
        if text.upper() == known:
            return known
    raise argparse.ArgumentTypeError(f"found {text!r}; allowed: {', '.join(_known())}")


def _known() -> Iterator[Precision]:
    yield from get_args(Precision)
