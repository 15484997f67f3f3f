"""Training on one rank, with the real model at its smallest."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from engine_support import (  # noqa: F401
    TRAIN_IMAGES,
    Workspace,
    fresh_detector,
    open_workspace,
    stopping_at,
    workspace,
)
from os_support import files_of_at_most
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rtdetr_slurm.engine.actions.evaluate import evaluate
from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.process.phases import Doing, Phase, Phases
from rtdetr_slurm.engine.process.stop import Interrupted, StopFlag
from rtdetr_slurm.engine.training.checkpoint import load_checkpoint
from rtdetr_slurm.errors import ActionError, RequestError
from rtdetr_slurm.runs.checkpoints import last_checkpoint, list_checkpoints, resume_point

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


def weights(path: Path, part: str = "model") -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(path)[part])


def epoch_losses(workspace: Workspace) -> dict[int, float]:
    lines = workspace.status()
    return {line["epoch"]: line["kpi"]["train_loss"] for line in lines if "epoch" in line}


def reported(folder: Path) -> dict[str, list[int]]:
    """Which epochs of which KPI report.html has marked in its charts."""
    text = (folder / "report.html").read_text()
    epochs: dict[str, list[int]] = {}
    for name, epoch in re.findall(r"<title>(\w+): [\d.e-]+ at (\d+)</title>", text):
        epochs.setdefault(name, []).append(int(epoch))
    return epochs


def assert_same_weights(ours: Path, theirs: Path, part: str = "model") -> None:
    a, b = weights(ours, part), weights(theirs, part)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-6, msg=name)


@dataclass(frozen=True)
class Whole:
    """A training that was never interrupted, with averaged weights, what it said, and what it did,
    change by change."""

    workspace: Workspace
    kpi: dict[str, float]
    said: str
    phases: Phases
    did: list[Doing]

    @property
    def folder(self) -> Path:
        return self.workspace.results / "train"

    @property
    def last(self) -> Path:
        return self.folder / "model_epoch_001.pth"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with open_workspace(tmp_path_factory.mktemp("whole")) as opened:
        session = opened.session("train.enable_ema=true", "train.ema.decay=0.9")
        did: list[Doing] = []
        session.phases.observers.append(lambda phases: did.append(phases.now))
        with redirect_stdout(io.StringIO()) as said:
            kpi = train(session)
        yield Whole(opened, kpi, said.getvalue(), session.phases, did)


class TestARun:
    def test_says_what_it_does(self, whole: Whole) -> None:
        """Two epochs of three steps, both validated in two batches, one checkpoint at the end."""
        did = [(one.phase, one.epoch, one.step, one.steps) for one in whole.did]
        stepping = [(Phase.STEPPING, epoch, step, 3) for epoch in (0, 1) for step in range(4)]
        assert [one for one in did if one[0] is Phase.STEPPING] == stepping
        validating = [(Phase.VALIDATING, 0, step, 2) for step in range(3)]
        assert did[6:9] == validating
        assert [one.phase for one in whole.did].count(Phase.SAVING) == 1
        assert did[-1][0] is Phase.OTHER
        assert whole.phases.steps_done == 2 * (3 + 2)
        idle = {phase for phase, seconds in whole.phases.seconds.items() if not seconds}
        assert idle == {Phase.INFERRING}

    def test_what_it_leaves(self, whole: Whole) -> None:
        """Files, status lines, scores that `evaluate` finds again."""
        workspace, kpi, folder = whole.workspace, whole.kpi, whole.folder
        assert set(kpi) == {"train_loss", "val_mAP", "val_mAP50", "val_loss"}
        assert {p.name for p in folder.glob("*.pth")} == {"model_epoch_001.pth"}

        lines = workspace.status()
        assert [line["epoch"] for line in lines] == [0, 1]
        assert lines[1]["kpi"] == pytest.approx(kpi)
        assert (lines[1]["step"], lines[1]["max_step"], lines[1]["max_epoch"]) == (6, 6, 1)
        assert re.fullmatch(r"\d:\d\d:\d\d", lines[0]["eta"])
        assert lines[1]["eta"] == "0:00:00"
        for name in ("time_per_epoch", "time_per_step"):
            assert re.fullmatch(r"\d:\d\d:\d\d\.\d{3}", lines[0][name])

        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["metrics"]["mAP"] == kpi["val_mAP"]
        assert set(metrics["per_class"]) == {"circle", "square", "triangle"}
        each = [json.loads((folder / f"metrics_epoch_00{n}.json").read_text()) for n in (0, 1)]
        assert [one["epoch"] for one in each] == [0, 1]
        assert each[1] == metrics
        assert reported(folder) == {"train_loss": [1, 2], "val_loss": [1, 2],
                                    "val_mAP": [1, 2], "val_mAP50": [1, 2]}  # fmt: skip
        with Image.open(folder / "annotated.jpg") as picture:
            assert picture.width > 1000
        scalars = EventAccumulator(str(folder)).Reload()
        assert "epoch/train_loss" in scalars.Tags()["scalars"]

        content = load_checkpoint(folder / "model_epoch_001.pth")
        assert content["classes"] == {1: "circle", 2: "square", 3: "triangle"}
        assert (content["epoch"], content["step"], content["step_in_epoch"]) == (1, 6, 3)
        assert content["spec"]["model"]["num_queries"] == 10
        assert content["ema_updates"] == 6
        assert "activation checkpointing is off on CPU" in whole.said
        assert "12 training images" in whole.said

        checkpoint = f"evaluate.checkpoint={folder / 'model_epoch_001.pth'}"
        session = workspace.session(checkpoint, "evaluate.batch_size=2", name="evaluate")
        again = evaluate(session)
        assert session.phases.steps_done == 3  # of five images
        assert again["test_mAP"] == pytest.approx(kpi["val_mAP"], abs=1e-6)
        scored = json.loads((workspace.results / "evaluate" / "metrics.json").read_text())
        assert (scored["epoch"], scored["images"], scored["input_size"]) == (1, 5, [64, 64])
        assert scored["detections"] == metrics["detections"] > 0
        assert scored["metrics"] == pytest.approx(metrics["metrics"], abs=1e-6)
        assert (workspace.results / "evaluate" / "annotated.jpg").exists()
        report = (workspace.results / "evaluate" / "report.html").read_text()
        assert str(folder / "model_epoch_001.pth") in report
        assert report.count("data:image/jpeg;base64,") == 5

    def test_is_repeatable(self, workspace: Workspace) -> None:
        losses = []
        for seed in (7, 7, 8):
            train(workspace.session(f"train.seed={seed}", "train.num_epochs=1",
                                   "train.checkpoint_interval=1"))  # fmt: skip
            losses.append(epoch_losses(workspace)[0])
            shutil.rmtree(workspace.results)
        assert losses[0] == losses[1] != losses[2]

    def test_without_validation(self, workspace: Workspace) -> None:
        stale = workspace.results / "train" / "metrics_epoch_000.json"  # of another training
        stale.parent.mkdir(parents=True)
        stale.touch()
        kpi = train(
            workspace.session(
                "dataset.val_data_sources=null",
                "train.num_epochs=1",
                "train.checkpoint_interval=1",
                "train.precision=bf16",
                "train.seed=-1",
                "train.clip_grad_norm=0",
            )
        )
        assert set(kpi) == {"train_loss"}
        assert not (workspace.results / "train" / "metrics.json").exists()
        assert not stale.exists()
        assert reported(stale.parent) == {"train_loss": [1]}
        assert (workspace.results / "train" / "annotated.jpg").exists()


class TestResume:
    def test_from_an_epoch(self, workspace: Workspace, whole: Whole) -> None:
        """Two epochs at once, and one and one: the same losses and the same weights."""
        every = ("train.checkpoint_interval=1", "train.enable_ema=true", "train.ema.decay=0.9")
        train(workspace.session(*every, "train.num_epochs=1"))
        first = workspace.results / "train" / "model_epoch_000.pth"
        train(workspace.session(*every, f"train.resume_training_checkpoint_path={first}"))
        assert epoch_losses(workspace) == pytest.approx(epoch_losses(whole.workspace), abs=1e-6)
        last = workspace.results / "train" / "model_epoch_001.pth"
        assert_same_weights(last, whole.last)
        assert_same_weights(last, whole.last, "ema")
        assert reported(last.parent) == reported(whole.folder)

    def test_with_other_values_in_another_folder(
        self, workspace: Workspace, whole: Whole, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """An epoch that is done is where rates, decay and batches may change, by whatever name it
        is found; what the optimizer has gathered stays. So do a search's trials go on."""
        link = workspace.root / "latest.pth"
        link.symlink_to(whole.last)
        resume = f"train.resume_training_checkpoint_path={link}"
        with pytest.raises(
            RequestError, match=r"train\.num_epochs: found 2; \S+ has 2 epochs done"
        ):
            train(workspace.session(resume))
        other = ("lr=1e-6", "lr_backbone=2e-6", "weight_decay=0.5", "warmup_steps=0")
        optim = [f"train.optim.{one}" for one in other]
        session = workspace.session(resume, "train.num_epochs=3", "dataset.batch_size=6", *optim)
        train(replace(session, costs=("parameters",)))
        assert f"goes on from {link}: 2 of 3 epochs are done" in capsys.readouterr().out
        folder = workspace.results / "train"
        assert [path.name for path in folder.glob("*.pth")] == ["model_epoch_002.pth"]
        (line,) = (line for line in workspace.status() if "epoch" in line)
        # Six steps of four images before, two of six now.
        assert (line["epoch"], line["step"], line["max_step"], line["eta"]) == (2, 8, 8, "0:00:00")
        detector = fresh_detector(session)
        fused = sum(one.numel() for one in detector.fuse().parameters())
        assert line["kpi"]["parameters"] == fused

        before, after = (
            load_checkpoint(one) for one in (whole.last, folder / "model_epoch_002.pth")
        )
        rates = {
            one["name"]: (one["lr"], one["weight_decay"])
            for one in after["optimizer"]["param_groups"]
        }
        assert rates == {
            "backbone_no_decay": (2e-6, 0.0),
            "backbone": (2e-6, 0.5),
            "no_decay": (1e-6, 0.0),
            "decay": (1e-6, 0.5),
        }
        steps = {int(one["step"]) for one in after["optimizer"]["state"].values()}
        assert steps == {8}
        for name, _ in detector.named_parameters():  # moved by steps of the new rate
            torch.testing.assert_close(
                after["model"][name], before["model"][name], rtol=0, atol=1e-5, msg=name
            )

    @pytest.mark.parametrize("stop_at", [1, 5, 7])
    def test_from_an_interruption(
        self,
        workspace: Workspace,
        whole: Whole,
        monkeypatch: pytest.MonkeyPatch,
        stop_at: int,
    ) -> None:
        """Stopped in the middle of the first epoch, of the second, and in the validation after
        it (7 = 3 steps, 2 batches of validation, 2 steps): the same run in the end."""
        with pytest.raises(Interrupted):
            train(stopping_at(workspace.session(), stop_at))
        folder = workspace.results / "train"
        [interrupted] = folder.glob("*.pth")
        assert interrupted.name.startswith("interrupted_epoch_")
        monkeypatch.setenv("RTDETR_RESUME", "1")
        train(workspace.session())
        assert epoch_losses(workspace) == pytest.approx(epoch_losses(whole.workspace), abs=1e-6)
        assert [p.name for p in folder.glob("*.pth")] == ["model_epoch_001.pth"]
        assert_same_weights(folder / "model_epoch_001.pth", whole.last)

    def test_from_a_validation_that_failed(
        self, workspace: Workspace, whole: Whole, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The epoch's steps are not lost and not done again, and it is validated once."""
        image = workspace.data / "val" / "images" / "000003.jpg"
        pixels = image.read_bytes()

        class Losing(StopFlag):
            """The image goes while the training works on its first epoch."""

            @property
            def requested(self) -> bool:  # type: ignore[override]
                image.unlink(missing_ok=True)
                return False

            @requested.setter
            def requested(self, _: bool) -> None: ...

        losing = replace(workspace.session("train.checkpoint_interval=1"), stop=Losing())
        with pytest.raises(ActionError, match=f"image {image} does not exist"):
            train(losing)
        folder = workspace.results / "train"
        assert [p.name for p in folder.glob("*.pth")] == ["interrupted_epoch_000_step_000003.pth"]
        assert last_checkpoint(folder) is None  # for whoever takes an epoch with its validation
        image.write_bytes(pixels)
        monkeypatch.setenv("RTDETR_RESUME", "1")
        train(workspace.session("train.checkpoint_interval=1"))
        told = [(line["epoch"], line["step"]) for line in workspace.status() if "epoch" in line]
        assert told == [(0, 3), (1, 6)]
        assert epoch_losses(workspace) == pytest.approx(epoch_losses(whole.workspace), abs=1e-6)
        scored = [one.metric is not None for one in list_checkpoints(folder)]
        assert scored == [True, True]
        assert_same_weights(folder / "model_epoch_001.pth", whole.last)
        assert not [*folder.glob("interrupted*")]

    def test_truncated_interruption(
        self,
        workspace: Workspace,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """It is named and passed over; the epoch before it is gone on from."""
        every = "train.checkpoint_interval=1"
        with pytest.raises(Interrupted):
            train(stopping_at(workspace.session(every), 6))  # 3 steps, validation, a step
        folder = workspace.results / "train"
        [interrupted] = folder.glob("interrupted*.pth")
        torn = interrupted.read_bytes()
        interrupted.write_bytes(torn[: len(torn) // 2])
        found, problems = resume_point(folder)
        assert found is not None
        assert found.path == folder / "model_epoch_000.pth"
        assert str(interrupted) in problems[0]

        monkeypatch.setenv("RTDETR_RESUME", "1")
        train(workspace.session(every))
        said = capsys.readouterr()
        assert f"{interrupted} cannot be read" in said.err
        assert f"goes on from {folder / 'model_epoch_000.pth'}" in said.out
        warnings = [line for line in workspace.status() if line["verbosity"] == "WARNING"]
        assert "passed over" in warnings[0]["message"]
        # a finished epoch makes an interruption within it obsolete
        interrupted.write_bytes(torn)
        found, _ = resume_point(folder)
        assert found is not None
        assert found.path == folder / "model_epoch_001.pth"

    def test_refusals(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(Interrupted):
            train(stopping_at(workspace.session(), 1))
        [path] = (workspace.results / "train").glob("interrupted*.pth")
        resume = f"train.resume_training_checkpoint_path={path}"
        for change, message in (
            (
                "dataset.num_classes=6",
                r"dataset\.num_classes: found 6; \S+ has class heads for 4 classes",
            ),
            ("model.dec_layers=1", r"model\.dec_layers: found 1; \S+ has 2; allowed: the same"),
            ("model.nheads=4", r"model\.nheads: found 4; \S+ has 8; allowed: the same"),
            ("train.freeze=[encoder]", r'train\.freeze: found \["encoder"\]; .* with \[\], and so'),
            ("model.train_backbone=false", r"model\.train_backbone: found false; .* with true"),
            ("dataset.batch_size=3", "the middle of epoch 1, .* with batch_size 4; this .* has 3"),
        ):
            with pytest.raises(RequestError, match=message):
                train(workspace.session(resume, change))
        with pytest.raises(RequestError, match=r"none\.pth does not exist"):
            train(workspace.session("train.resume_training_checkpoint_path=none.pth"))
        other = workspace.root / "other.pth"
        torch.save({"model": {}}, other)
        with pytest.raises(RequestError, match="is not one of this engine"):
            train(workspace.session(f"train.resume_training_checkpoint_path={other}"))
        newer = workspace.root / "newer.pth"
        torch.save({**torch.load(path, weights_only=True), "schema_version": 99}, newer)
        message = "version 99 is newer than version 1"
        with pytest.raises(RequestError, match=message):
            train(workspace.session(f"train.resume_training_checkpoint_path={newer}"))
        with pytest.raises(RequestError, match=message):  # and not read as weights from elsewhere
            evaluate(workspace.session(f"evaluate.checkpoint={newer}", name="evaluate"))
        with pytest.raises(RequestError, match="class heads for 4 classes"):
            evaluate(
                workspace.session(
                    f"evaluate.checkpoint={path}", "dataset.num_classes=5", name="evaluate"
                )
            )


class TestBadInput:
    def break_image(self, workspace: Workspace, split: str, number: int) -> Path:
        path = workspace.data / split / "images" / f"{number:06d}.jpg"
        path.write_bytes(path.read_bytes()[:100])
        return path

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_undecodable_image_stops(self, workspace: Workspace, split: str) -> None:
        path = self.break_image(workspace, split, 3)
        with pytest.raises(ActionError) as caught:
            train(workspace.session("train.num_epochs=1", "train.checkpoint_interval=1"))
        assert f"image {path} cannot be decoded: " in str(caught.value)
        assert "--bad-images skip" in str(caught.value)

    def test_undecodable_images_skipped(
        self, workspace: Workspace, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Each is named once; in validation it is an image in which nothing was found."""
        broken = [self.break_image(workspace, "train", 2), self.break_image(workspace, "val", 3)]
        kpi = train(workspace.session(skip_bad_images=True))
        assert math.isfinite(kpi["val_mAP"])
        warnings = [line for line in workspace.status() if line["verbosity"] == "WARNING"]
        assert len(warnings) == 2
        for path, line in zip(broken, warnings, strict=True):
            assert str(path) in line["message"]
            assert "kpi" not in line  # in TAO's every line repeats the last ones
        assert capsys.readouterr().err.count("cannot be decoded") == 2

    def test_nothing_decodable(self, workspace: Workspace) -> None:
        for number in range(1, TRAIN_IMAGES + 1):
            self.break_image(workspace, "train", number)
        with pytest.raises(ActionError, match="not one training image can be decoded"):
            train(workspace.session(skip_bad_images=True))

    def test_set_smaller_than_a_batch(self, workspace: Workspace) -> None:
        with pytest.raises(RequestError, match=r"12 images, fewer (.|\n)*batch_size 16 x 1 ranks"):
            train(workspace.session("dataset.batch_size=16"))

    def test_fp16_on_cpu(self, workspace: Workspace) -> None:
        with pytest.raises(RequestError, match=r"train\.precision fp16 needs a CUDA device"):
            train(workspace.session("train.precision=fp16"))

    def test_loss_that_is_not_finite(self, workspace: Workspace) -> None:
        """Named with its step, its terms and its images; no weights are touched."""
        broken = workspace.root / "nan.pth"
        model = fresh_detector(workspace.session(), 0)
        content = model.state_dict()
        content["decoder.dec_score_head.1.bias"].fill_(math.nan)
        torch.save(content, broken)
        with pytest.raises(ActionError) as caught:
            train(workspace.session(f"train.pretrained_model_path={broken}"))
        message = str(caught.value)
        assert "the loss is not finite at step 0 (epoch 1/2) on rank 0: " in message
        assert "loss_vfl=nan" in message
        assert message.count(".jpg)") == 4
        assert not list(workspace.results.rglob("*.pth"))

    def test_no_space_left(self, workspace: Workspace) -> None:
        session = workspace.session("train.num_epochs=1", "train.checkpoint_interval=1")
        with files_of_at_most(1 << 20), pytest.raises(ActionError) as caught:
            train(session)
        path = workspace.results / "train" / "interrupted_epoch_000_step_000003.pth"
        assert f"no space left to write {path}" in str(caught.value)
        assert not list(workspace.results.rglob("*.pth*"))  # no torn file stays behind


class TestFreeze:
    def test_frozen_modules_keep_their_statistics(self, workspace: Workspace) -> None:
        train(
            workspace.session(
                "train.freeze=[backbone]", "train.num_epochs=1", "train.checkpoint_interval=1"
            )
        )
        after = weights(workspace.results / "train" / "model_epoch_000.pth")
        before = fresh_detector(workspace.session(), 7).state_dict()
        changed = {name for name in after if not torch.equal(after[name], before[name])}
        assert changed
        assert not any(name.startswith("backbone.") for name in changed)
