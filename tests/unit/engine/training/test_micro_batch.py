"""The size of micro-batches: how it is searched, remembered, and tried out without a trace."""

from __future__ import annotations

import json

import pytest
import torch
from engine_support import Workspace, fresh_detector, workspace  # noqa: F401

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.losses import build_criterion
from rtdetr_slurm.engine.training.micro_batch import find_size, largest_part, try_step, worst_batch
from rtdetr_slurm.engine.training.objective import DetectionObjective
from rtdetr_slurm.errors import ActionError

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


@pytest.mark.parametrize(
    ("images", "limit", "size", "tried"),
    [
        (12, 12, 12, [12]),
        (12, 5, 4, [12, 6, 4]),
        (12, 1, 1, [12, 6, 4, 3, 2, 1]),
        (7, 6, 1, [7, 1]),
        (4, 0, None, [4, 2, 1]),
    ],
)
def test_the_largest_divisor_that_fits(
    images: int, limit: int, size: int | None, tried: list[int]
) -> None:
    asked: list[int] = []

    def fits(number: int) -> bool:
        asked.append(number)
        return number <= limit

    assert largest_part(images, fits) == size
    assert asked == tried
    assert largest_part(images, never, least=3) is None


def never(_: int) -> bool:
    return False


def test_a_size_is_found_once(workspace: Workspace) -> None:
    """For other conditions it is searched again, and both are kept."""
    session = workspace.session()
    here = {"gpus": ["A"], "image_size": [64, 96]}
    assert find_size(session, 8, here, lambda size: size <= 2) == 2
    assert find_size(session, 8, here, never) == 2
    there = here | {"gpus": ["A", "B"]}
    assert find_size(session, 8, there, lambda size: size <= 4) == 4
    assert find_size(session, 8, here, never) == 2
    record = json.loads((session.results_dir / "micro_batch.json").read_text())
    assert [one["size"] for one in record["found"]] == [2, 4]
    with pytest.raises(ActionError, match="micro-batch of 1, of 64 x 96 pixels, does") as caught:
        find_size(session, 8, here | {"gpus": ["C"]}, never)
    assert caught.value.failure_class is FailureClass.OOM_GPU


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_a_step_that_is_tried_out_changes_nothing(workspace: Workspace, optimizer: str) -> None:
    session = workspace.session(
        f"train.optim.optimizer={optimizer}",
        "train.optim.weight_decay=0.5",
        "train.enable_ema=true",
        "train.freeze=[backbone.conv1]",
    )
    experiment = session.experiment
    model = fresh_detector(session)
    objective = DetectionObjective(model, build_criterion(experiment.model), "fp32")
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    batch = worst_batch(2, 64, 96, 7, torch.device("cpu"))
    random = torch.get_rng_state()
    try_step(session, model, objective, *batch)
    assert torch.equal(torch.get_rng_state(), random)
    after = objective.state_dict()
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    assert all(parameter.grad is None for parameter in objective.parameters())
    assert len(batch[1]) == 2
    assert batch[1][0]["boxes"].shape == (7, 4)


def test_on_cpu_batches_stay_as_they_are(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    train(workspace.session("engine.batch=auto", "train.is_dry_run=true"))
    assert "engine.batch auto: on CPU batches are as the spec says" in capsys.readouterr().out
    assert not (workspace.results / "train" / "micro_batch.json").exists()
