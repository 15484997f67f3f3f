"""Micro-batches against the batch that they are parts of."""

from __future__ import annotations

import pytest
import torch
from accumulation_support import BOXES, batch, detection, state_of, step_in_parts, with_fixed_norms
from engine_support import Workspace, stopping_at, workspace  # noqa: F401
from model_support import small_config
from torch import nn

from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.datasets.sampler import DistributedBatchSampler
from rtdetr_slurm.engine.losses import build_criterion
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.engine.training.accumulation import by_step, has_batch_statistics
from rtdetr_slurm.engine.training.checkpoint import load_checkpoint
from rtdetr_slurm.engine.training.distillation import Binding, DistillationObjective
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.bindings import feature_modules

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


@pytest.mark.parametrize("parts", [2, 4])
def test_gradients_are_those_of_one_batch(parts: int) -> None:
    pixels, wanted = batch()
    whole, expected = step_in_parts(state_of(detection()), 1, pixels, wanted, sum(BOXES))
    loss, found = step_in_parts(state_of(detection()), parts, pixels, wanted, sum(BOXES))
    assert loss.value == pytest.approx(whole.value, rel=1e-10)
    assert loss.terms == pytest.approx(whole.terms, rel=1e-9, abs=1e-12)
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-8, atol=1e-10, msg=name)
    assert sum(grad.abs().sum() > 0 for grad in found.values()) > 0.9 * len(found)


def test_a_distillation_is_the_same_too() -> None:
    """Its terms are means over the images; they are in float32."""
    pixels, wanted = batch()
    results = []
    for parts in (1, 2):
        student, teacher = detection().detector, detection().detector
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter.mul_(1.1)
        bound = feature_modules("srcs", small_config())
        criterion = build_criterion(small_config())
        bindings = [Binding(bound, bound, name, 1.0) for name in ("L2", "IOU", "KL")]
        for module in (student, teacher):
            module.float()
        objective = DistillationObjective(student, criterion, "fp32", teacher.eval(), bindings, 1.0)
        state = state_of(with_fixed_norms(objective))
        boxes = [{"labels": one["labels"], "boxes": one["boxes"].float()} for one in wanted]
        results.append(step_in_parts(state, parts, pixels.float(), boxes, sum(BOXES)))
    (whole, expected), (loss, found) = results
    assert any(name.startswith("loss_distillation") for name in loss.terms)
    assert loss.terms == pytest.approx(whole.terms, rel=1e-4)
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-3, atol=1e-4, msg=name)


def test_steps_take_their_batches_in_order() -> None:
    assert list(by_step(range(6), 3)) == [[0, 1, 2], [3, 4, 5]]
    assert list(by_step((), 2)) == []


def test_a_step_has_the_same_images_in_parts() -> None:
    whole, parted = (DistributedBatchSampler(26, 4, 0, 2, seed=3) for _ in range(2))
    parted.parts = 2
    for sampler in (whole, parted):
        sampler.set_position(1, 1)
    assert whole.steps_per_epoch == parted.steps_per_epoch == 3
    assert (len(whole), len(parted)) == (2, 4)
    batches = [one for part in by_step(parted, 2) for one in (part[0] + part[1],)]
    assert batches == list(whole)


def test_norms_in_batch_mode_are_noticed() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    assert has_batch_statistics(model.train())
    assert not has_batch_statistics(model.eval())


def test_a_training_counts_optimizer_steps(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    """12 images: one step of 2 x 4 in each epoch, and 4 images are left over."""
    parted = ("engine.accumulate=4", "dataset.batch_size=2", "train.enable_ema=true")
    train(workspace.session(*parted))
    said = capsys.readouterr().out
    assert "1 steps per epoch" in said
    assert "the gradients of 4 micro-batches of 2 images per rank" in said
    assert "batch norms take the statistics of each micro-batch" in said
    path = workspace.results / "train" / "model_epoch_001.pth"
    saved = load_checkpoint(path)
    assert (saved["step"], saved["ema_updates"], saved["batch_size"]) == (2, 2, 8)
    steps = {int(one["step"]) for one in saved["optimizer"]["state"].values()}
    assert steps == {2}


def test_a_step_is_not_interrupted_within(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps of 2 x 2 images; one that is stopped after the second has the same weights."""
    parted = ("engine.accumulate=2", "dataset.batch_size=2", "train.checkpoint_interval=1")
    parted = (*parted, "train.num_epochs=1")
    train(workspace.session(*parted, f"results_dir={workspace.root / 'whole'}"))
    with pytest.raises(Interrupted):
        train(stopping_at(workspace.session(*parted), 1))
    folder = workspace.results / "train"
    assert [one.name for one in folder.glob("*.pth")] == ["interrupted_epoch_000_step_000002.pth"]
    monkeypatch.setenv("RTDETR_RESUME", "1")
    train(workspace.session(*parted))
    whole, again = (
        load_checkpoint(root / "train" / "model_epoch_000.pth")
        for root in (workspace.root / "whole", workspace.results)
    )
    for name, tensor in whole["model"].items():
        assert torch.equal(again["model"][name], tensor), name


def test_a_set_smaller_than_a_step(workspace: Workspace) -> None:
    with pytest.raises(
        RequestError, match=r"12 images, fewer (.|\n)*batch_size 4 x engine\.accumulate 4 x 1"
    ):
        train(workspace.session("engine.accumulate=4"))
