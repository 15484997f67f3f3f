"""What a sweep tries, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from rtdetr_slurm.deploy.variants import Asked, Shape, parser
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.experiment import ExperimentConfig

EXPERIMENT = ExperimentConfig()


def asked(*words: str) -> Asked:
    found: Any = parser().parse_intermixed_args(["-e", "spec.yaml", *words])
    return Asked(found.eval_idx, found.num_queries, found.size, found.precision)


def test_what_is_not_asked_for_is_as_in_the_spec() -> None:
    assert asked().shapes(EXPERIMENT) == [Shape(5, 300, (640, 640))]
    assert asked().precisions(EXPERIMENT) == ["FP32"]


def test_combinations_come_once() -> None:
    found = asked(
        *("--eval-idx", "5,2,5", "--num-queries", "100,300"),
        *("--size", "480x640,320", "--precision", "fp16,FP32,FP16"),
    )
    shapes = found.shapes(EXPERIMENT)
    assert len(shapes) == len({*shapes}) == 8
    assert {shape.eval_idx for shape in shapes} == {2, 5}
    assert {shape.size for shape in shapes} == {(480, 640), (320, 320)}
    assert found.precisions(EXPERIMENT) == ["FP16", "FP32"]
    assert str(shapes[0]) == "480x640-q100-e5"


def test_a_smaller_detector_keeps_no_more_than_it_finds() -> None:
    model = Shape(2, 10, (64, 64)).model(EXPERIMENT.model, 4)
    assert (model.eval_idx, model.num_queries, model.num_select) == (2, 10, 40)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--eval-idx", "6"), r"--eval-idx: found 6; allowed: 0\.\.5"),
        (("--size", "32x32"), r"--num-queries: found 300; allowed: <= 21, the cells"),
    ],
)
def test_what_the_detector_cannot_be(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        asked(*words).shapes(EXPERIMENT)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--size", "50x64"), "multiples of 32"),
        (("--size", "64xx"), "multiples of 32"),
        (("--precision", "bf16"), "allowed: FP32, FP16, INT8"),
        (("--num-queries", "0"), "whole numbers >= 1"),
        (("--eval-idx", "x"), "whole numbers >= 0"),
    ],
)
def test_what_is_no_such_thing(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        asked(*words)
    assert end.value.code == 2
    assert said in capsys.readouterr().err
