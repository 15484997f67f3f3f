"""Scoring checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine_support import Workspace, fresh_weights, stopping_at, workspace  # noqa: F401

from rtdetr_slurm.engine.actions.evaluate import compare_classes, evaluate
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.errors import RequestError

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


class TestEvaluate:
    def test_weights_from_elsewhere(self, workspace: Workspace) -> None:
        """A bare state dict is scored, as long as its class heads have the right size."""
        setting = f"evaluate.checkpoint={fresh_weights(workspace)}"
        size = ("evaluate.input_height=64", "evaluate.input_width=96")
        kpi = evaluate(workspace.session(setting, *size, name="evaluate"))
        assert set(kpi) == {"test_mAP", "test_mAP50"}
        scored = json.loads((workspace.results / "evaluate" / "metrics.json").read_text())
        assert (scored["epoch"], scored["input_size"]) == (None, [64, 96])
        with pytest.raises(
            RequestError, match=r"dataset\.num_classes: found 5; .*class heads for 4 classes"
        ):
            evaluate(workspace.session(setting, "dataset.num_classes=5", name="evaluate"))

    def test_missing_and_damaged_checkpoints(self, workspace: Workspace) -> None:
        path = workspace.root / "model.pth"
        setting = f"evaluate.checkpoint={path}"
        with pytest.raises(RequestError, match=r"model\.pth: no such weight file"):
            evaluate(workspace.session(setting, name="evaluate"))
        path.write_bytes(b"PK damaged")
        with pytest.raises(RequestError, match=r"model\.pth: .*(damaged|plain weights)"):
            evaluate(workspace.session(setting, name="evaluate"))

    def test_threshold_and_classes(self, workspace: Workspace) -> None:
        setting = f"evaluate.checkpoint={fresh_weights(workspace)}"
        none = evaluate(workspace.session(setting, "evaluate.conf_threshold=0.99", name="evaluate"))
        assert none == {"test_mAP": 0, "test_mAP50": 0}
        evaluate(workspace.session(setting, "dataset.eval_class_ids=[2]", name="evaluate"))
        scored = json.loads((workspace.results / "evaluate" / "metrics.json").read_text())
        assert set(scored["per_class"]) == set(scored["thresholds"]) == {"square"}
        assert {row["true"] for row in scored["confusion"]} <= {"square", None}

    def test_classes_of_another_training(self, workspace: Workspace) -> None:
        session = workspace.session(name="evaluate")
        scored, path = {1: "cat", 3: "cow", 4: "dog"}, Path("a.json")
        compare_classes(session, {1: "cat", 2: "dog", 3: "owl"}, scored, path)
        said = [line["message"].split(" in the test")[0] for line in workspace.status("evaluate")]
        assert said == [
            "class 'dog' had id 2 in training and has id 4",
            "class 3 was 'owl' in training and is 'cow'",
        ]

        with pytest.raises(
            RequestError,
            match=r"a\.json and the weights .*: 'cat' is 1 there, and 0 of the weights",
        ):
            compare_classes(session, {0: "cat", 2: "cow", 3: "dog"}, scored, path)
        compare_classes(session, None, scored, path)
        assert "1 as 'cat', 3 as 'cow', 4 as 'dog'" in workspace.status("evaluate")[-1]["message"]

    def test_interrupted(self, workspace: Workspace) -> None:
        weights = fresh_weights(workspace)
        session = workspace.session(f"evaluate.checkpoint={weights}", name="evaluate")
        with pytest.raises(Interrupted):
            evaluate(stopping_at(session, 1))
