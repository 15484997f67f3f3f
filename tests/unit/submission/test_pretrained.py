"""Pretrained weights of the site profile: filled in where a training names none, and pinned."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from launch_support import local_stage, make_run, write_checkpoint, write_dataset

from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.launch.checks import check_weights
from rtdetr_slurm.runs.run import open_run
from rtdetr_slurm.submission.prepare import Prepared, freeze, prepare


class Site:
    """A profile of this machine with weights for two backbones."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spec = write_dataset(root / "data")
        self.backbone = write_checkpoint(root / "r18.pth")
        self.detector = write_checkpoint(root / "rtdetr-r50.pth", "all")
        self.profile(resnet_18=self.backbone, rtdetr_resnet_50=self.detector, resnet_50="/none")

    def profile(self, **models: object) -> None:
        lines = [f"  {name}: {path}" for name, path in models.items()]
        text = "\n".join(["scheduler: local", "name: here", "models:", *lines, ""])
        (self.root / "site.yaml").write_text(text)

    def ask(self, *overrides: str, parent: str | None = None) -> Prepared:
        return prepare(
            self.spec, overrides, action="train", site=str(self.root / "site.yaml"), parent=parent
        )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Site(tmp_path)


def test_the_sites_weights_are_taken_and_pinned(site: Site) -> None:
    made = site.ask("model.backbone=resnet_18")
    assert made.spec["model"]["pretrained_backbone_path"] == str(site.backbone)
    note = f"model.pretrained_backbone_path: {site.backbone}, which the site profile has as "
    assert [n for n in made.plan.notes if "models." in n] == [f"{note}models.resnet_18"]
    run = freeze(made, lambda _: None)
    recorded = open_run(run.path).manifest.models
    digest = hashlib.sha256(site.backbone.read_bytes()).hexdigest()
    assert {name: one.sha256 for name, one in recorded.items()} == {"resnet_18": digest}
    check_weights(recorded)
    write_checkpoint(site.backbone, "other")
    with pytest.raises(
        SiteError, match=r"models\.resnet_18 of the site profile, /.* is not the on"
    ):
        check_weights(recorded)
    site.backbone.unlink()
    with pytest.raises(SiteError, match=r"models\.resnet_18 of the site profile, .*: No such file"):
        check_weights(recorded)


def test_a_whole_detectors_come_first(site: Site) -> None:
    made = site.ask()
    assert made.spec["train"]["pretrained_model_path"] == str(site.detector)
    assert made.spec["model"]["pretrained_backbone_path"] == ""


def test_what_is_frozen_must_be_there_with_the_sites_weights(site: Site) -> None:
    """The norms of a pretrained backbone are constant, and have no parameters."""
    freeze_norm = "train.freeze=[backbone.bn1.weight]"
    with pytest.raises(RequestError, match=r"train\.freeze\[0\]: .*models\.resnet_18"):
        site.ask("model.backbone=resnet_18", freeze_norm)
    assert site.ask("model.backbone=resnet_34", freeze_norm).pretrained is None
    site.ask(freeze_norm)  # a whole detector's
    site.ask("model.backbone=resnet_18", "train.freeze=[backbone.layer1]")


def test_what_the_spec_names_or_resumes_is_left_alone(site: Site) -> None:
    mine = write_checkpoint(site.root / "mine.pth")
    given = f"model.pretrained_backbone_path={mine}"
    for override in (given, f"train.resume_training_checkpoint_path={mine}"):
        made = site.ask(override)
        assert made.pretrained is None
        assert made.spec["train"]["pretrained_model_path"] == ""
    parent = make_run(site.root / "runs", local_stage(site.root / "trained"))
    parent.record("submitted", stage="train", job_id="1")
    [task] = parent.plan.tasks()
    write_checkpoint(task.results_dir / "model_epoch_000.pth")
    parent.record("finished", stage="train", job_id="1", state="success")
    assert site.ask("train.num_epochs=2", parent=str(parent.path)).pretrained is None


def test_weights_that_are_none_are_the_sites_fault(site: Site) -> None:
    site.profile(resnet_50="/none/r50.pth")
    with pytest.raises(SiteError, match=r"site 'here': models\.resnet_50: /none/r50\.pth cannot"):
        site.ask()
    site.profile(resnet50=site.backbone)
    with pytest.raises(SiteError, match=r"models\.resnet50: allowed: .*did you mean 'resnet_50'"):
        site.ask()
    site.profile(resnet_50="r50.pth")
    with pytest.raises(SiteError, match=r"models\.resnet_50: 'r50\.pth' must be an absolute path"):
        site.ask()
    site.profile(resnet_50="null")
    assert site.ask().pretrained is None
