"""`job`: what is said about the queue, and the actions that follow."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_files import TRAIN, load, only, problems

from rtdetr_slurm.spec.job import FollowUp

TEST = "  test_data_sources: {image_dir: /data/images, json_file: /data/test.json}\n"
CHAIN = TRAIN + TEST


def test_job_section(tmp_path: Path) -> None:
    job = load(tmp_path, TRAIN + "job: {action: train, time: 1:30:00, mem_gb: 64}\n").job
    assert (job.time, job.mem_gb, job.requeue, job.bad_images) == (90, 64, True, "stop")
    assert (job.then, job.parent) == ([], None)
    line = only(problems(tmp_path, TRAIN + "job: {partiton: x}\n", action="train"))
    assert line == "spec.yaml:5:7: job.partiton: unknown key; did you mean 'partition'?"
    line = only(problems(tmp_path, TRAIN, "job.name=a b", action="train"))
    assert "job.name: found 'a b'; allowed: 1 to 64 letters, digits and . _ -" in line


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("2-12", 60 * 60),
        ("1-00:30:00", 24 * 60 + 30),
        ("12:00:00", 720),
        ("0:00:01", 1),
        ("'45'", 45),
        ("null", None),
    ],
)
def test_time_limits_are_minutes(tmp_path: Path, text: str, minutes: int | None) -> None:
    assert load(tmp_path, TRAIN, f"job.time={text}", action="train").job.time == minutes
    chain = load(tmp_path, CHAIN, f"job.then=[{{action: evaluate, time: {text}}}]", action="train")
    assert chain.job.then[0].time == minutes


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("0", "found 0; allowed: at least one minute, as minutes (120), hours:minutes:"),
        ("-5", "found -5; allowed: at least one minute"),
        ("0:00:00", "found '0:00:00'; allowed: at least one minute, as minutes (120), hours:"),
        ("00:30", "found '00:30'; allowed: minutes (120), hours:minutes:seconds (2:00:00), or "),
        ("00:30", "so write 00:30:00 for the former"),
        ("2h", "found '2h'; allowed: minutes (120), hours:minutes:seconds (2:00:00), or days-"),
        ("tomorrow", "found 'tomorrow'; allowed: minutes (120), hours:minutes:seconds"),
        ("1.5", "found 1.5; allowed: an integer"),
        ("true", "found true; allowed: an integer"),
    ],
)
def test_time_limits_that_are_none(tmp_path: Path, text: str, allowed: str) -> None:
    line = only(problems(tmp_path, TRAIN, f"job.time={text}", action="train"))
    assert line.startswith(f"override 'job.time={text}': job.time: found")
    assert allowed in line


# --- follow-ups ------------------------------------------------------------------------------
def test_follow_ups_are_names_or_sections(tmp_path: Path) -> None:
    text = (
        CHAIN
        + """
job:
  action: train
  then:
    - evaluate
    - {action: evaluate, name: again, time: 0:30:00, partition: p, account: a, qos: q,
       cpus_per_task: 4, mem_gb: 8}
"""
    )
    first, second = load(tmp_path, text).job.then
    assert first == FollowUp(action="evaluate", name="evaluate")
    assert (second.action, second.name, second.time) == ("evaluate", "again", 30)
    assert (second.partition, second.account, second.qos) == ("p", "a", "q")
    assert (second.cpus_per_task, second.mem_gb) == (4, 8)
    (only_one,) = load(tmp_path, CHAIN, "job.then=[evaluate]", action="train").job.then
    assert only_one == first
    named = load(tmp_path, CHAIN, "job.then=[{action: evaluate, name: null}]", action="train")
    assert named.job.then == [first]
    text = CHAIN + "job.then: [{action: evaluate}]\n"
    assert load(tmp_path, text, "job.then[0].mem_gb=3", action="train").job.then[0].mem_gb == 3


@pytest.mark.parametrize(
    ("then", "line"),
    [
        ("[evalute]", "6:14: job.then[0]: found 'evalute'; allowed: train, evaluate, inference, "),
        ("[evalute]", "did you mean 'evaluate'?"),
        ("[{name: x}]", "6:14: job.then[0].action: missing, and it has no default"),
        ("[{action: evalute}]", "6:23: job.then[0].action: found 'evalute'; allowed: train"),
        ("[{action: evaluate, tim: 3}]",
         "6:33: job.then[0].tim: unknown key; did you mean 'time'?"),
        ("[{action: evaluate, time: 2h}]", "6:39: job.then[0].time: found '2h'; allowed: minutes"),
        ("[{action: evaluate, name: a b}]", "6:39: job.then[0].name: found 'a b'; allowed: 1 to"),
        ("[3]", "6:14: job.then[0]: found 3; allowed: the name of an action, or a section"),
        ("evaluate", "6:13: job.then: found 'evaluate' (text); allowed: a list"),
    ],
)  # fmt: skip
def test_follow_ups_that_are_none(tmp_path: Path, then: str, line: str) -> None:
    found = only(problems(tmp_path, CHAIN + f"job: {{then: {then}}}\n", action="train"))
    assert found.startswith("spec.yaml:6:")
    assert line in found


# --- the parent ------------------------------------------------------------------------------
def test_parent_by_both_its_names(tmp_path: Path) -> None:
    for loaded in (
        load(tmp_path, TRAIN + "job: {parent: r-1}\n", action="train"),
        load(tmp_path, TRAIN + "job: {parent_job_id: r-1}\n", action="train"),
        load(tmp_path, TRAIN + "job.parent_job_id: r-1\n", action="train"),
        load(tmp_path, TRAIN, "job.parent=r-1", action="train"),
        load(tmp_path, TRAIN, "job.parent_job_id=r-1", action="train"),
        load(tmp_path, TRAIN + "job: {parent_job_id: r-2}\n", "job.parent=r-1", action="train"),
    ):
        assert loaded.job.parent == "r-1"


def test_parent_is_given_once(tmp_path: Path) -> None:
    text = TRAIN + "job:\n  parent: a\n  parent_job_id: b\n"
    line = only(problems(tmp_path, text, action="train"))
    assert line == (
        "spec.yaml:6:3: job.parent: given twice: as 'job.parent_job_id' in line 7 and in line 6"
    )
    line = only(problems(tmp_path, TRAIN, "job.parent=a", "job.parent_job_id=b", action="train"))
    assert "job.parent: given twice: also by override 'job.parent=a'" in line
    line = only(problems(tmp_path, TRAIN + "job: {parent_job_id: 5}\n", action="train"))
    assert line.startswith("spec.yaml:5:22: job.parent: found 5 (write it in quotes to make it")
