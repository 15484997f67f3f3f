"""TAO's status.json in our terms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from launch_support import write_checkpoint

from rtdetr_slurm.contract import Status
from rtdetr_slurm.runs.checkpoints import best_checkpoint
from rtdetr_slurm.runs.claim import Start, new_claim, take
from rtdetr_slurm.runs.progress import progress_of
from rtdetr_slurm.runs.status import StatusLog, read_status, status_lines_of
from rtdetr_slurm.runs.tao import UNSIGNED, last_word, leftover

FIRST, SECOND = Start("a:train", 0), Start("a:train", 1)


def write(folder: Path, *lines: dict[str, Any]) -> None:
    """Lines as TAO appends them."""
    with (folder / "status.json").open("a") as stream:
        stream.writelines(json.dumps({"status": "RUNNING", **line}) + "\n" for line in lines)


def begin(folder: Path, start: Start, **data: Any) -> StatusLog:
    log = StatusLog(folder / "status.json", start)
    log.write(Status.STARTED, "the launch", **{UNSIGNED: True}, max_epoch=5, **data)
    return log


def epoch(number: int, score: str | None = None) -> list[dict[str, Any]]:
    """What TAO writes of an epoch, whose counts are its own."""
    kpi = {"val_mAP": score, "val_mAP50": score, "val_loss": 1.0}
    scored = [{"message": "Eval metrics generated.", "kpi": kpi}]
    counts = {"epoch": number, "max_epoch": 120, "eta": "9:00:00.000000"}
    end = {**counts, "kpi": kpi if score else {"train_loss": 2.0}}
    return [*(scored if score else []), end, {"kpi": {"train_loss": 1.0 / number}}]


def test_epochs_are_those_of_the_checkpoints(tmp_path: Path) -> None:
    """Validated every other epoch, stopped after the fourth, and gone on from the third."""
    begin(tmp_path, FIRST)
    write(tmp_path, *epoch(2), *epoch(3, "0.25"), *epoch(4), *epoch(5, "0.5"))
    resumes = "Resuming training from checkpoint: /r/model_epoch_002.pth"
    begin(tmp_path, SECOND)
    write(tmp_path, {"message": resumes}, *epoch(4, "0.125"))
    take(tmp_path, new_claim("a:train", restart=1))
    for number in range(5):
        write_checkpoint(tmp_path / f"model_epoch_{number:03d}.pth")
    best = best_checkpoint(tmp_path)
    assert best is not None
    assert (best.epoch, best.metric) == (1, 0.25), "the fourth's second score counts"
    lines = status_lines_of(tmp_path / "status.json", "a:train")
    assert [line["epoch"] for line in lines if "eta" not in line and "epoch" in line]
    progress = progress_of(lines)
    assert (progress.epoch, progress.max_epoch, progress.eta) == (3, 5, None)
    assert progress.metrics["val_mAP"] == 0.125
    assert [line["restart"] for line in lines][-1] == 1


def test_only_lines_that_were_announced_belong_to_a_start(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write(tmp_path, {"message": "another's"})
    log = begin(tmp_path, FIRST)
    write(tmp_path, {"message": "its own"})
    log.write(Status.RUNNING, "ours")
    write(tmp_path, {"message": "its own, too"})
    log.write(Status.SUCCESS, "over")
    write(tmp_path, {"message": "another's again"})
    StatusLog(path, SECOND).write(Status.STARTED, "an engine that signs its lines")
    write(tmp_path, {"message": "and another's"})
    own = [line["message"] for line in status_lines_of(path, "a:train")]
    assert own == [
        *("the launch", "its own", "ours", "its own, too", "over"),
        "an engine that signs its lines",
    ]


@pytest.mark.parametrize(
    ("lines", "status", "failure_class"),
    [
        ([{"message": "Train finished successfully."}], "SUCCESS", None),
        ([{"message": "Gen_trt_engine finished successfully."}, {}], "SUCCESS", None),
        ([{"status": "SUCCESS", "message": "evaluate action completed"}], "SUCCESS", None),
        ([{"message": "nothing finished successfully yet"}], "RUNNING", None),
        (
            [{"status": "FAILURE", "message": "User/System interruption: Train was interrupted"}],
            "FAILURE",
            "unknown",
        ),
        ([{"status": "FAILURE", "message": "Configuration error: x"}], "FAILURE", "config"),
    ],
)
def test_its_last_words(
    tmp_path: Path, lines: list[Any], status: str, failure_class: str | None
) -> None:
    begin(tmp_path, FIRST)
    write(tmp_path, *lines)
    last = last_word(read_status(tmp_path / "status.json"))
    assert last is not None
    assert (last["status"], last.get("failure_class")) == (status, failure_class)


def test_a_link_that_tao_would_follow_is_found(tmp_path: Path) -> None:
    assert leftover(tmp_path) is None
    assert leftover(tmp_path / "none") is None
    (tmp_path / "rtdetr_model_latest.pth").symlink_to("model_epoch_009.pth")
    assert "rtdetr_model_latest.pth is left of another training" in str(leftover(tmp_path))
