"""What ranks checkpoints and what they are called, what ends a training early, and dry runs: what
of that is refused before a job is queued."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_files import TRAIN, load, problems

VALIDATED = "dataset.val_data_sources={image_dir: /i, json_file: /j}"
RANKED = "train.checkpointer.enable_topk=true"


def only(lines: list[str]) -> str:
    (line,) = lines
    return line


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("best", "two epochs would have one name"),
        ("best_{val_mAP:.3f}", "two epochs would have one name"),
        ("best_{epoch:.0e}", "two epochs would have one name"),
        ("../{epoch}", "it would name a file '../0'"),
        ("/tmp/{epoch}", "it would name a file '/tmp/0'"),
        ("a/{epoch}", "no folder (that is dirpath's)"),
        (".{epoch}", "beginning with a letter or a digit"),
        ("{epoch}..", "letters, digits and"),
        ("{epoch:c}", "it would name a file"),
        ("{epoch}.pth", "without .pth"),
        ("model_epoch_{epoch:03d}", "is what another kind of checkpoint is called"),
        ("interrupted_epoch_{epoch}_step_1", "is what another kind of checkpoint is called"),
        ("{epoch}_latest", "is what another kind of checkpoint is called"),
        ("{epoch.__class__}", "{epoch.__class__} is not known; allowed: {epoch}, {val_mAP}"),
        ("{epoch!r}", "{epoch!r} is not known"),
        ("{step}", "{step} is not known"),
        ("{}", "{} is not known"),
        ("{epoch", "allowed: a pattern such as"),
        ("{epoch:q}", "allowed: a pattern such as"),
        ("{epoch:0300d}", "names of up to 200 characters"),
    ],
)
def test_a_pattern_gives_each_epoch_a_name_of_its_own(
    tmp_path: Path, pattern: str, why: str
) -> None:
    given = (RANKED, VALIDATED, "train.num_epochs=20", f'train.checkpointer.filename="{pattern}"')
    line = only(problems(tmp_path, TRAIN, *given, action="train"))
    assert "train.checkpointer.filename: found " in line
    assert why in line


def test_metrics_may_be_in_the_names(tmp_path: Path) -> None:
    pattern = 'train.checkpointer.filename="b-{epoch:02d}-{val_mAP:.3f}"'
    cfg = load(tmp_path, TRAIN, RANKED, VALIDATED, pattern, action="train").experiment.train
    assert cfg.checkpointer.file_name(7, {"val_mAP": 0.25}) == "b-07-0.250.pth"
    inserted = cfg.checkpointer.model_copy(update={"auto_insert_metric_name": True})
    assert inserted.file_name(7, {"val_mAP": 0.25}) == "b-epoch=07-val_mAP=0.250.pth"
    given = (RANKED, "train.checkpointer.monitor=train_loss", pattern)
    line = only(problems(tmp_path, TRAIN, *given, action="train"))
    assert "{val_mAP} is not known; allowed: {epoch}, {train_loss}" in line


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("train.checkpointer.monitor", (RANKED,)),
        ("engine.early_stopping.monitor", ("engine.early_stopping.patience=3",)),
    ],
)
def test_what_is_watched_is_computed(tmp_path: Path, field: str, given: tuple[str, ...]) -> None:
    line = only(problems(tmp_path, TRAIN, *given, action="train"))
    assert f'{field}: found "val_mAP", which nothing computes' in line.replace("'", '"')
    load(tmp_path, TRAIN, *given, VALIDATED, action="train")
    load(tmp_path, TRAIN, *given, f"{field}=train_loss", action="train")


def test_no_other_metric_ranks(tmp_path: Path) -> None:
    given = (RANKED, VALIDATED, "train.checkpointer.monitor=accuracy")
    line = only(problems(tmp_path, TRAIN, *given, action="train"))
    assert "allowed: val_mAP, val_mAP50, val_loss, train_loss" in line


def test_nothing_goes_on_from_a_dry_run(tmp_path: Path) -> None:
    dry = "train.is_dry_run=true"
    load(tmp_path, TRAIN, dry, action="train")
    line = only(problems(tmp_path, TRAIN, dry, "job.then=[export]", action="train"))
    assert "train.is_dry_run: found true; it leaves no checkpoint, and action 'export'" in line
    given = (dry, "job.then=[export]", "export.checkpoint=/c.pth")
    load(tmp_path, TRAIN, *given, action="train")
