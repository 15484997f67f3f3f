"""Training on the GPU that is here: what only CUDA does, and what it must not do otherwise."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from engine_support import Workspace, fresh_detector, open_workspace, stopping_at
from torch import Tensor, nn

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.datasets.sources import TrainingData, open_sources, open_training_data
from rtdetr_slurm.engine.losses import build_criterion, matcher
from rtdetr_slurm.engine.process.distributed import Context
from rtdetr_slurm.engine.process.explain import explain
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.engine.training.accumulation import Gradients
from rtdetr_slurm.engine.training.checkpoint import load_checkpoint
from rtdetr_slurm.engine.training.compilation import compile_detector, compiler
from rtdetr_slurm.engine.training.loop import multi_scale, update
from rtdetr_slurm.engine.training.micro_batch import fits_in_memory
from rtdetr_slurm.engine.training.objective import detection_objective
from rtdetr_slurm.engine.training.state import TrainingState, build_state
from rtdetr_slurm.runs.checkpoints import resume_point
from rtdetr_slurm.runs.failures import Failure
from rtdetr_slurm.vision.preprocess import to_unit_range
from rtdetr_slurm.vision.samples import Batch

GPU = torch.device("cuda", 0)
REPEATABLE = "train.cudnn.deterministic=true"


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(tmp_path) as opened:
        yield opened


def on_gpu(workspace: Workspace, *overrides: str) -> Session:
    session = workspace.session(*overrides)
    return replace(session, context=Context(0, 1, 0, 1, GPU))


@dataclass
class Step:
    """A training that is about to make its first step."""

    session: Session
    data: TrainingData
    state: TrainingState
    batch: Batch

    def images(self) -> Tensor:
        return multi_scale(to_unit_range(self.batch.pixels), [], 0, 0)

    def make(self) -> None:
        """A step as the loop makes it, without what looks at its loss."""
        images, boxes = self.images(), torch.tensor(float(self.batch.num_boxes), device=GPU)
        Gradients(self.state, 1, boxes, boxes).add(images, self.batch.targets())
        update(self.state, self.session.experiment.train.clip_grad_norm)


def first_step(session: Session) -> Step:
    data = open_training_data(session, open_sources(session)["train"], 7)
    model = fresh_detector(session)
    criterion = build_criterion(session.experiment.model)
    objective = detection_objective(session, model, criterion, {})
    state = build_state(session, model, objective, 7)
    data.sampler.set_position(0, 0)
    batch = next(iter(data.loader))
    state.training_mode()
    return Step(session, data, state, batch.to(GPU))


def gradients(step: Step) -> Mapping[str, Tensor]:
    torch.manual_seed(0)
    boxes = torch.tensor(float(step.batch.num_boxes), device=GPU)
    loss, _ = step.state.objective(step.images(), step.batch.targets(), boxes)
    loss.backward()
    named = step.state.model.named_parameters()
    return {name: one.grad.clone() for name, one in named if one.grad is not None}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_trains(workspace: Workspace, precision: str) -> None:
    """In fp16 with a scale of the loss, which the checkpoint holds."""
    kpi = train(on_gpu(workspace, f"train.precision={precision}", "train.enable_ema=true"))
    assert math.isfinite(kpi["train_loss"])
    saved = load_checkpoint(workspace.results / "train" / "model_epoch_001.pth")
    assert all(torch.isfinite(one).all() for one in saved["model"].values())
    assert (saved["scaler"] is not None) == (precision == "fp16")


def test_the_optimizer_is_one_kernel_per_group(workspace: Workspace) -> None:
    step = first_step(on_gpu(workspace))
    step.make()
    optimizer = step.state.optimizer
    assert optimizer.defaults["fused"]
    moments = [state["exp_avg"] for state in optimizer.state.values()]
    assert moments
    assert all(one.device == GPU for one in moments)


def test_averaged_weights_may_be_in_host_memory(workspace: Workspace) -> None:
    for asked, kind in ((True, "cpu"), (False, "cuda")):
        offload = f"train.ema.cpu_offload={str(asked).lower()}"
        ema = first_step(on_gpu(workspace, "train.enable_ema=true", offload)).state.ema
        assert ema is not None
        ema.update()
        assert {one.device.type for one in ema.module.parameters()} == {kind}
        assert next(ema.module_on(GPU).parameters()).device == GPU


def test_batches_come_from_pinned_memory(workspace: Workspace) -> None:
    for asked in (True, False):
        session = on_gpu(workspace, f"dataset.pin_memory={str(asked).lower()}")
        data = open_training_data(session, open_sources(session)["train"], 7)
        batch = next(iter(data.loader))
        assert batch.pixels.is_pinned() is batch.boxes.is_pinned() is asked


def test_convolutions_see_channels_last(workspace: Workspace) -> None:
    step = first_step(on_gpu(workspace))
    seen = []

    def look(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))

    for module in step.state.model.backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(look)
            assert module.weight.is_contiguous(memory_format=torch.channels_last)
    step.make()
    assert seen
    assert all(seen)


def test_a_step_waits_for_the_gpu_once(workspace: Workspace) -> None:
    """In the matcher, for the costs of all prediction sets together."""
    step = first_step(on_gpu(workspace, "train.clip_grad_norm=0.1"))
    images, boxes = step.images(), torch.tensor(float(step.batch.num_boxes), device=GPU)
    targets = step.batch.targets()
    for _ in range(2):  # cuDNN and the optimizer's moments are set up
        step.make()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Gradients(step.state, 1, boxes, boxes).add(images, targets)
            update(step.state, 0.1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    where = [(one.filename, one.lineno) for one in caught if "synchroniz" in str(one.message)]
    assert [Path(file).name for file, _ in where] == [Path(matcher.__file__).name], where


def test_recomputed_activations_change_no_gradient(workspace: Workspace) -> None:
    plain, again = (
        gradients(first_step(on_gpu(workspace, f"train.activation_checkpoint={asked}")))
        for asked in ("false", "true")
    )
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_a_compiled_detector_has_the_same_gradients(workspace: Workspace) -> None:
    given = "train.activation_checkpoint=false"
    plain = gradients(first_step(on_gpu(workspace, given)))
    step = first_step(on_gpu(workspace, given))
    with compiler(GPU):
        compile_detector(step.state.model)
        compiled = gradients(step)
    assert plain.keys() == compiled.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(compiled[name], gradient, rtol=1e-2, atol=1e-4, msg=name)


def test_it_goes_on_as_if_it_had_not_been_stopped(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of the second epoch, averaged weights and all."""
    given = (REPEATABLE, "train.enable_ema=true")
    train(on_gpu(workspace, *given))
    whole = load_checkpoint(workspace.results / "train" / "model_epoch_001.pth")
    workspace.results = workspace.root / "stopped"
    with pytest.raises(Interrupted):
        train(stopping_at(on_gpu(workspace, *given), 4))
    point, problems = resume_point(workspace.results / "train")
    assert point is not None
    assert not problems
    monkeypatch.setenv("RTDETR_RESUME", "1")
    train(on_gpu(workspace, *given))
    resumed = load_checkpoint(workspace.results / "train" / "model_epoch_001.pth")
    for name, tensor in whole["model"].items():
        # Scatter-adds of the deformable attention have no order on CUDA.
        torch.testing.assert_close(resumed["model"][name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_too_large_a_batch_is_explained(workspace: Workspace) -> None:
    """As a failure of its own kind, with what can be done about it."""
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.empty_cache()
    held = torch.cuda.memory_reserved(GPU)
    torch.cuda.set_per_process_memory_fraction((held + 64 * 2**20) / total, GPU)
    size = "dataset.augmentation={train_spatial_size: [1024, 1024], multi_scales: []}"
    try:
        with pytest.raises(torch.OutOfMemoryError) as caught:
            train(on_gpu(workspace, size))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, GPU)
    failure = explain(caught.value, 0, 1)
    assert failure.failure_class == FailureClass.OOM_GPU
    assert "out of memory" in failure.reason
    advice = Failure(failure.failure_class, failure.reason).advice
    assert "lower dataset.batch_size" in advice
    del caught


def test_memory_that_a_trial_ran_out_of_is_free_again() -> None:
    held: list[Tensor] = []

    def take(gigabytes: int) -> None:
        held.append(torch.empty(gigabytes << 30, dtype=torch.uint8, device=GPU))
        held.clear()

    assert not fits_in_memory(lambda: take(4096), GPU)
    assert fits_in_memory(lambda: take(1), GPU)
    assert torch.cuda.memory_reserved(GPU) < 1 << 30


def test_micro_batches_are_as_large_as_they_can_be(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of tiny images all four; the next start takes it from the record."""
    for _ in range(2):
        train(on_gpu(workspace, "engine.batch=auto", "train.is_dry_run=true"))
        assert "micro-batches of 4 of the 4 images of a step" in capsys.readouterr().out
    record = json.loads((workspace.results / "train" / "micro_batch.json").read_text())
    assert [one["size"] for one in record["found"]] == [4]
