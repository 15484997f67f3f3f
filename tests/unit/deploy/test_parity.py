"""What may be lost, what is said of it, and what becomes of the engine."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from table_support import table  # noqa: F401

from rtdetr_slurm.deploy.forms import Form, Kind, Missing
from rtdetr_slurm.deploy.measure import require, set_aside
from rtdetr_slurm.deploy.parity import Parity, Scored
from rtdetr_slurm.engine.comparison import Compared
from rtdetr_slurm.errors import ActionError
from rtdetr_slurm.vision.preprocess import Resize
from rtdetr_slurm.vision.scoring import EvaluationData
from rtdetr_slurm.vision.table import Table
from rtdetr_slurm.vision.tradeoff import Latency

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)

TIMES = (Latency(1, 5, 1.0, 2.0, 3.0, 900.0),)


def scored(kind: Kind, precision: str, mean_ap: float) -> Scored:
    path = Path(f"/{kind}")
    cpu = torch.device("cpu")
    form = Form(kind, path, "ab" * 32, precision, "any 1.0", cpu, lambda _: {})
    return Scored(form, {"mAP": mean_ap, "mAP50": mean_ap}, TIMES, None)


@pytest.fixture
def compared(table: Table) -> Compared:
    return Compared("val", EvaluationData(table, Resize((64, 64)), 10), 1000)


def parity(compared: Compared, precision: str, *values: float, limit: float = 0.5) -> Parity:
    kinds: tuple[Kind, ...] = ("checkpoint", "onnx", "engine")
    forms = [
        scored(kind, precision if kind == "engine" else "FP32", value)
        for kind, value in zip(kinds, values, strict=True)
    ]
    return Parity(compared, forms, [], limit)


@pytest.mark.parametrize(
    ("precision", "values", "limit", "said"),
    [
        ("FP16", (0.5, 0.5, 0.495), 0.5, None),
        ("FP16", (0.5, 0.5, 0.6), 0.5, None),
        ("FP16", (0.5, 0.5, 0.494), 0.5, "Keep layers in FP32"),
        ("INT8", (0.5, 0.5, 0.48), 1.5, "Calibrate on more images"),
        ("INT8", (0.5, 0.48, 0.48), 1.5, "The ONNX file has lost 2.00 of them already"),
        ("FP32", (0.5, 0.5, 0.4), 0.5, "nothing should be lost"),
    ],
)
def test_what_is_lost_is_limited(
    compared: Compared, precision: str, values: tuple[float, ...], limit: float, said: str | None
) -> None:
    found = parity(compared, precision, *values, limit=limit)
    told = json.loads(found.text("trt_evaluate", Path("/e"), (64, 64)))
    assert told["accepted"] == (said is None)
    assert told["drop_points"] == pytest.approx(100 * (values[0] - values[2]))
    if said is None:
        require(found)
        return
    with pytest.raises(ActionError, match=said) as error:
        require(found)
    assert f"of 1000 images of dataset.val_data_sources), and {limit:g} are" in str(error.value)
    assert "--max-map-drop (job.max_map_drop)" in str(error.value)


def test_what_nobody_knows_is_no_loss(compared: Compared) -> None:
    reason = Missing("checkpoint", "/c: No such file or directory")
    alone = Parity(compared, [scored("onnx", "FP32", 0.5)], [reason], 0.5)
    without_boxes = parity(compared, "FP16", math.nan, math.nan, math.nan)
    nothing = Parity(Compared(why="no images"), [], [], 0.5)
    for one, said in (
        (alone, reason.why),
        (without_boxes, "dataset.val_data_sources has no boxes to find"),
        (nothing, "no images"),
    ):
        told: dict[str, Any] = json.loads(one.text("trt_evaluate", Path("/e"), (64, 64)))
        assert (told["accepted"], told["not_known"], told["drop_points"]) == (None, said, None)
        require(one)
    assert nothing.tradeoff is None


def test_without_its_checkpoint_an_engine_is_compared_with_the_onnx_file(
    compared: Compared,
) -> None:
    forms = [scored("onnx", "FP32", 0.5), scored("engine", "FP16", 0.4)]
    found = Parity(compared, forms, [Missing("checkpoint", "gone")], 0.5)
    assert found.problem is not None
    assert "loses 10.00 points of mAP against the onnx" in found.problem
    told = json.loads(found.text("gen_trt_engine", Path("/e"), (64, 64)))
    assert (told["reference"], told["not_compared"]) == ("onnx", {"checkpoint": "gone"})


def test_an_engine_that_loses_too_much_is_set_aside(compared: Compared, tmp_path: Path) -> None:
    engine = tmp_path / "engines" / "rtdetr.engine"
    engine.parent.mkdir()
    names = {"rtdetr.engine", "rtdetr.engine.json", "rtdetr.engine.onnx", "rtdetr.engine.log"}
    for attempt in ("first", "second"):
        for name in names:
            engine.with_name(name).write_text(attempt)
        with pytest.raises(ActionError, match=r"The engine is kept as .*/rejected/rtdetr\.engine$"):
            require(parity(compared, "FP16", 0.5, 0.5, 0.1), engine)
        assert [path.name for path in engine.parent.iterdir()] == ["rejected"]
        kept = {path.name: path.read_text() for path in (engine.parent / "rejected").iterdir()}
        assert kept == dict.fromkeys(names, attempt)
    (tmp_path / "engines" / "rejected").rename(tmp_path / "elsewhere")
    (tmp_path / "engines" / "rejected").write_text("a file")
    with pytest.raises(ActionError, match=r"cannot .*rejected"):
        set_aside(engine)
