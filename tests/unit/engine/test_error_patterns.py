"""The errors that NVIDIA's own users meet with RT-DETR, one by one: each is produced here, met at
the earliest moment that it can be known, and answered with what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from engine_support import (  # noqa: F401
    Workspace,
    error_of,
    fresh_detector,
    fresh_weights,
    workspace,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.engine.process.arguments import Arguments
from rtdetr_slurm.engine.process.rank import run
from rtdetr_slurm.engine.process.stop import StopFlag
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.failures import classify
from rtdetr_slurm.submission.prepare import prepare

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


class SmallGpu(TorchDispatchMode):
    """Refuses tensors of more than some bytes, in the words of CUDA's allocator."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, torch.Tensor) and one.nbytes > self.most:
                raise torch.OutOfMemoryError(
                    f"CUDA out of memory. Tried to allocate {one.nbytes >> 10} KiB. GPU 0 has a "
                    "total capacity of 1.00 MiB.\nMore of it on a second line."
                )
        return made


def submitted(workspace: Workspace, *overrides: str, action: str = "train") -> str:
    """What `submit` refuses a spec with, before there is a run."""
    with pytest.raises(RequestError) as caught:
        prepare(workspace.spec_file(), overrides, action=action, site="local")
    return str(caught.value)


def renumbered(workspace: Workspace, ids: Mapping[int, int]) -> None:
    """Give the categories of the training images other ids."""
    path = workspace.data / "train" / "annotations.json"
    content = json.loads(path.read_text())
    for category in content["categories"]:
        category["id"] = ids.get(category["id"], category["id"])
    for annotation in content["annotations"]:
        annotation["category_id"] = ids.get(annotation["category_id"], annotation["category_id"])
    path.write_text(json.dumps(content))


def test_cuda_out_of_memory(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known only when it happens; status.json has the class, and whoever reads it the advice."""
    monkeypatch.setenv("RTDETR_ACCELERATOR", "cpu")
    arguments = Arguments("train", workspace.root / "spec.yaml", (), None)
    with SmallGpu(700_000):  # room for each weight, and not for the feature maps of a batch
        assert run(workspace.load(), arguments, StopFlag()) == 1
    told = capsys.readouterr().err
    advice = "the GPU's memory was too small: lower dataset.batch_size"
    assert "rtdetr: error: rank 0: CUDA out of memory. Tried to allocate" in told
    assert advice in told
    assert "Traceback" not in told
    line = workspace.status()[-1]
    assert (line["status"], line["failure_class"]) == ("FAILURE", "oom_gpu")
    failure = classify(status_line=line)
    assert failure.advice.startswith(advice)
    assert "second line" not in failure.evidence


def test_num_classes_mismatch(workspace: Workspace) -> None:
    """Too few for the data, too many, and others than the checkpoint's."""
    told = submitted(workspace, "dataset.num_classes=3")
    assert "dataset.num_classes is 3. Category ids are used as class indices" in told
    assert "set dataset.num_classes to 4" in told
    ready = prepare(workspace.spec_file(), ["dataset.num_classes=80"], action="train", site="local")
    (note,) = [note for note in ready.plan.notes if "num_classes" in note]
    assert "is 80, and the data have category ids up to 3: 4 is enough" in note
    weights = f"evaluate.checkpoint={fresh_weights(workspace)}"
    told = submitted(workspace, "dataset.num_classes=5", weights, action="evaluate")
    assert "dataset.num_classes: found 5; " in told
    assert "weights.pth has class heads for 4 classes; allowed: 4" in told


def test_category_index_out_of_range(workspace: Workspace) -> None:
    """Four classes with ids 1 to 4 are five, and scores are of those ids."""
    renumbered(workspace, {3: 4})
    told = submitted(workspace, "dataset.val_data_sources=null")
    assert "has category id 4" in told
    assert "set dataset.num_classes to 5" in told
    told = submitted(workspace, "dataset.num_classes=5")
    assert "class 'triangle' has id 4 in " in told
    renumbered(workspace, {4: 3})
    told = submitted(workspace, "dataset.eval_class_ids=[0,1,2]")
    assert "dataset.eval_class_ids holds [0], but " in told
    assert "1 (circle)" in told
    log = ["RuntimeError: CUDA error: device-side assert triggered"]  # as TAO's image leaves it
    failure = classify(log_tail=log)
    assert failure.failure_class is FailureClass.CONFIG
    assert "set dataset.num_classes to the largest category id + 1" in failure.advice
    assert "dataset.eval_class_ids to ids that the annotations have" in failure.advice


def test_return_interm_indices_against_num_feature_levels(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = "model.return_interm_indices=[1,2,3]"
    told = submitted(workspace, wrong)
    expected = "model.return_interm_indices: found 3 entries; allowed: 2, one for each of "
    assert f"{expected}model.num_feature_levels" in told
    code, told = error_of(capsys, "train", "-e", str(workspace.spec_file()), wrong)
    assert code == 2
    assert expected in told


def test_export_shape_mismatch(workspace: Workspace) -> None:
    """The older template's shape, wide and low: the position code follows the size, so that there
    is nothing to meet; tests/unit/engine/actions/test_export.py exports such a one."""
    session = workspace.session()
    with torch.no_grad():
        found = fresh_detector(session).eval()(torch.rand(1, 3, 64, 128))
    assert found["pred_boxes"].shape == (1, 10, 4)
    given = ("export.checkpoint=empty.pth", "export.input_height=540")
    told = submitted(workspace, *given, action="export")
    assert "export.input_height: found 540; allowed: a multiple of 32" in told
    log = [  # as TAO's image leaves it
        "RuntimeError: The size of tensor a (510) must match the size of tensor b (400) at "
        "non-singleton dimension 1"
    ]
    advice = classify(log_tail=log).advice
    assert "leave export.input_height and export.input_width at 640" in advice


def test_gen_trt_engine_on_the_training_command_line(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = error_of(capsys, "gen_trt_engine", "-e", str(workspace.spec_file()))
    assert code == 2
    assert "gen_trt_engine is a deploy action: it belongs to rtdetr-deploy, the" in told
    for action in ("train", "export"):
        assert action in told.partition("rtdetr runs: ")[2]
