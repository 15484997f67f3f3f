"""Nodes and GPUs: from the right section, and each of the two GPU fields from the other."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_files import EVALUATE, NEEDED, TRAIN, load, only, problems

from rtdetr_slurm.spec import Topology


def test_topology_comes_from_the_right_section(tmp_path: Path) -> None:
    two = ["train.num_gpus=2", "train.gpu_ids=[0, 1]", "train.num_nodes=3"]
    assert load(tmp_path, TRAIN, *two).topology == Topology(3, 2, (0, 1))
    distill = load(tmp_path, "", *NEEDED["distill"], *two, action="distill")
    assert distill.topology == Topology(3, 2, (0, 1))
    engine = load(tmp_path, "", *NEEDED["gen_trt_engine"], "gen_trt_engine.gpu_id=1")
    assert engine.topology == Topology(1, 1, (1,))
    export = [*NEEDED["export"], "export.gpu_id=1"]
    assert load(tmp_path, "", *export, action="export").topology == Topology(1, 1, (1,))
    on_cpu = load(tmp_path, "", *export, "export.on_cpu=true", action="export")
    assert on_cpu.topology == Topology(1, 1, (0,), on_cpu=True)
    assert load(tmp_path, "", *NEEDED["quantize"], action="quantize").topology == Topology(
        1, 1, (0,)
    )
    assert load(tmp_path, TRAIN, action="train").topology == Topology(1, 1, (0,))


IDS = "train.gpu_ids: [0, 1], as train.num_gpus is 2"
COUNT = "train.num_gpus: 2, as train.gpu_ids is [2, 3]"


@pytest.mark.parametrize(
    ("text", "overrides", "gpu_ids", "notes"),
    [
        ("train: {num_gpus: 2}", [], (0, 1), (IDS,)),
        ("train.num_gpus: 2", [], (0, 1), (IDS,)),
        ("num_gpus: 2", [], (0, 1), (IDS,)),
        ("", ["train.num_gpus=2"], (0, 1), (IDS,)),
        ("", ["num_gpus=2"], (0, 1), (IDS,)),
        ("train: {num_gpus: 2, gpu_ids: '???'}", [], (0, 1), (IDS,)),
        ("dataset.workers: 2", ["train.num_gpus=${dataset.workers}"], (0, 1), (IDS,)),
        ("train: {gpu_ids: [2, 3]}", [], (2, 3), (COUNT,)),
        ("", ["train.gpu_ids=[2, 3]"], (2, 3), (COUNT,)),
        ("train: {num_gpus: 2}", ["train.gpu_ids=[2, 3]"], (2, 3), ()),
        # Nothing follows that is not so anyway.
        ("train: {num_gpus: 1}", [], (0,), ()),
        ("train: {gpu_ids: [3]}", [], (3,), ()),
        # Another action's section.
        ("evaluate: {num_gpus: 2}", [], (0,), ()),
    ],
)
def test_one_of_the_two_gives_the_other(
    tmp_path: Path, text: str, overrides: list[str], gpu_ids: tuple[int, ...], notes: tuple[str]
) -> None:
    loaded = load(tmp_path, TRAIN + text + "\n", *overrides, action="train")
    assert loaded.topology == Topology(1, len(gpu_ids), gpu_ids)
    assert loaded.notes == notes


def test_the_section_that_was_written_is_named(tmp_path: Path) -> None:
    loaded = load(tmp_path, "", *NEEDED["distill"], "train.num_gpus=2", action="distill")
    assert loaded.notes == (IDS,)
    loaded = load(tmp_path, EVALUATE + "  num_gpus: 2\n")
    assert loaded.notes == ("evaluate.gpu_ids: [0, 1], as evaluate.num_gpus is 2",)
    assert loaded.resolved()["evaluate"]["gpu_ids"] == [0, 1]
    chain = [*NEEDED["evaluate"], "job.then=[evaluate]", "evaluate.num_gpus=2", "num_gpus=2"]
    assert load(tmp_path, TRAIN, *chain, action="train").notes[:2] == (
        IDS,
        "evaluate.gpu_ids: [0, 1], as evaluate.num_gpus is 2",
    )


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{num_gpus: two}", "train.num_gpus: found 'two' (text); allowed: an integer"),
        ("{num_gpus: 0}", "train.num_gpus: found 0; allowed: ≥ 1"),
        ("{gpu_ids: []}", "train.gpu_ids: found []; allowed: at least 1 entries (found 0)"),
        ("{gpu_ids: [1, 1]}", "train.gpu_ids: found 1 twice; allowed: each once"),
        ("{gpu_ids: [0, a]}", "train.gpu_ids[1]: found 'a' (text); allowed: an integer"),
    ],
)
def test_what_is_wrong_gives_nothing(tmp_path: Path, section: str, message: str) -> None:
    line = only(problems(tmp_path, TRAIN + f"train: {section}\n", action="train"))
    assert message in line
