"""What a run folder says is data: whatever is in one, the others are shown, and no traceback.

A good folder is damaged in a few hundred ways, always the same ones, and the commands that read
it run on each.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launch_support import local_stage, make_run, write_checkpoint
from slurm_support import FakeSlurm

from rtdetr_slurm.cli.main import main
from rtdetr_slurm.contract import FailureClass, Status
from rtdetr_slurm.errors import UserError
from rtdetr_slurm.launch.inputs import resolve_inputs
from rtdetr_slurm.launch.node import input_binds
from rtdetr_slurm.launch.node_errors import read_node_errors
from rtdetr_slurm.plan.model import Dependency, Input, Origin, Scheduler, Stage, StageTask
from rtdetr_slurm.runs.artefacts import verified_checkpoints
from rtdetr_slurm.runs.claim import Start, claim_id, new_claim, read_claim, take
from rtdetr_slurm.runs.holders import report_of_record, why_in_use
from rtdetr_slurm.runs.live import Live, StartTimes, write_live
from rtdetr_slurm.runs.report import keep_summary
from rtdetr_slurm.runs.run import Run, open_run
from rtdetr_slurm.runs.status import StatusLog
from rtdetr_slurm.submission.sending import token

Capture = pytest.CaptureFixture[str]
Damage = Callable[[random.Random, Path], None]

SEEDS = int(os.environ.get("RTDETR_TEST_SEEDS", "100"))
GOOD, BAD = "train-20260102-000000-aaaa", "train-20260101-000000-bbbb"
HOSTILE: list[Any] = [
    *(None, True, -1, 0, 10**18, 10**400, 1e308, float("nan"), float("inf"), 0.5),
    *("", "\x1b[2J\x1b]0;owned\x07", "[red]x[/red] [/]", "\x9b31m", "a\0b", "\ud800", "‮"),
    *("--user=x", "../../../etc/passwd", "/dev/zero", "\r\nstate        success", "x" * 100_000),
    *("٣", "1e9", "2026-01-01", "0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59-23:59"),
    *([], {}, [[]], [None], {"": ""}, [1, "a", {}], {"\x1b[2J": 1, "__class__": {}}),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RTDETR_SLURM_SITE", "local")
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def build(root: Path, run_id: str, *, ended: bool, scheduler: Scheduler = "local") -> Run:
    """A run of a training and an evaluation, with a file of every kind."""
    results = root / run_id / "results"
    train = local_stage(results / "train")
    train = replace(train, launch=replace(train.launch, scheduler=scheduler))
    evaluate = Stage(
        "evaluate",
        "evaluate",
        train.resources,
        train.launch,
        None,
        ("rtdetr", "evaluate", "-e", "spec.yaml"),
        str(results / "evaluate"),
        depends_on=(Dependency(Origin("train")),),
        inputs=(Input("evaluate.checkpoint", "parent_model", Origin("train")),),
    )
    run = make_run(root, train, evaluate, run_id=run_id)
    (results / "train").mkdir()
    start = Start(claim_id(run_id, "train"))
    facts = {"run_dir": str(run.path), "stage": "train", "job_id": "77"}
    take(results / "train", new_claim(start.claim, restart=0, **facts))
    status = StatusLog(results / "train" / "status.json", start)
    for name in ("train", "evaluate"):
        run.record("submitting", stage=name)
        # On another machine, so that nobody looks for its process.
        run.record("submitted", stage=name, job_id="77", host="elsewhere", process_start=5)
    run.record("started", stage="train", job_id="77", restart=0)
    status.write(Status.RUNNING, "on it", epoch=1, max_epoch=9, eta="0:01", kpi={"val_mAP": 0.5})
    told = {"stepping": 60.0, "container": 5.0}
    now = StartTimes(0, "2026-01-02T03:05:06+00:00", told, loader_wait=3.0)
    write_live(
        results / "train", Live(start.claim, "cuda", "on it", now, 1, 9, 3, 5, 2.5, 40.0, 99.0)
    )
    write_checkpoint(results / "train" / "model_epoch_001.pth")
    run.log_path("train", "77").write_text("\x1b[2Jfirst line\rsecond\nlast line\n")
    inputs = [{"field": "evaluate.checkpoint", "value": "/a", "source": "parent_model of train"}]
    (run.job_dir("evaluate") / "inputs.json").write_text(json.dumps(inputs))
    node = run.node_dir(next(run.plan.tasks()), 0)
    node.mkdir()
    (node / "error.json").write_text(json.dumps({"failure_class": "infra", "reason": "no GPU"}))
    if ended:
        status.fail(FailureClass.OOM_GPU, "CUDA out of memory")
        failure = {"state": "failed", "failure_class": "oom_gpu", "reason": "CUDA out of memory"}
        checkpoints = verified_checkpoints(results / "train")
        run.record("finished", stage="train", job_id="77", checkpoints=checkpoints, **failure)
        keep_summary(run)
    return run


# --- ways to damage a file -----------------------------------------------------------------
def fields(node: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value in a JSON document."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from fields(value, (*at, key))


def in_a_field(change: Callable[[random.Random, Any, Any], None]) -> Damage:
    """Changes one field of a JSON document, or of one line of a file of lines."""

    def damage(chance: random.Random, path: Path) -> None:
        text = path.read_text()
        lines = text.splitlines() if path.suffix == ".jsonl" or path.name == "status.json" else []
        number = chance.randrange(len(lines)) if lines else 0
        content = json.loads(lines[number] if lines else text)
        place = chance.choice(list(fields(content)))
        node = content
        for key in place[:-1]:
            node = node[key]
        change(chance, node, place[-1])
        changed = json.dumps(content)
        path.write_text("\n".join([*lines[:number], changed, *lines[number + 1 :], ""]))

    return damage


def retype(chance: random.Random, node: Any, key: Any) -> None:
    node[key] = chance.choice(HOSTILE)


def delete(chance: random.Random, node: Any, key: Any) -> None:
    del node[key]


def rename(chance: random.Random, node: Any, key: Any) -> None:
    if isinstance(node, dict):
        node[chance.choice(["\x1b[31mnew", "event", "state", "stage"])] = node.pop(key)
    else:
        node.append(node[key])


def nest(chance: random.Random, node: Any, key: Any) -> None:
    for _ in range(60):
        node[key] = {"a": node[key]}


def content(*choices: bytes) -> Damage:
    return lambda chance, path: path.write_bytes(chance.choice(choices)) and None


def cut(chance: random.Random, path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


def flip(chance: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(3):
        data[chance.randrange(len(data))] = chance.randrange(256)
    path.write_bytes(data)


def in_its_place(make: Callable[[Path], None]) -> Damage:
    def damage(chance: random.Random, path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def bind_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)
    os.chdir(here)


NOT_JSON = content(
    *(b"", b"[]", b"null", b"{}", b"7", b'"x"', b"\0" * 100, b"\xff\xfe\x00", b"[" * 100_000),
    *(b'{"a":' * 100_000, b"1" * 10_000, b'{"a": NaN}', b"\x1b[2J", b"\x1f\x8b\x08", b"\n" * 1000),
)
WITH_JSON: list[Damage] = [
    *[in_a_field(retype)] * 8,
    *[in_a_field(delete), in_a_field(rename)] * 2,
    in_a_field(nest),
]
WITH_ANY: list[Damage] = [
    *(cut, flip, NOT_JSON),
    in_its_place(os.mkfifo),
    in_its_place(Path.mkdir),
    in_its_place(lambda path: path.symlink_to(path)),
    in_its_place(lambda path: path.symlink_to("/dev/zero")),
    in_its_place(lambda path: path.symlink_to("/nowhere/\x1b[2J")),
    in_its_place(bind_socket),
    lambda chance, path: path.unlink(),
]


def files_of(run: Path) -> list[Path]:
    return sorted(path for path in run.rglob("*") if path.is_file())


def is_json(path: Path) -> bool:
    return path.suffix in (".json", ".jsonl")


def folders(chance: random.Random, run: Path) -> None:
    """A file in place of a folder, or a loop."""
    path = chance.choice(sorted(path for path in run.rglob("*") if path.is_dir()))
    shutil.rmtree(path)
    chance.choice([Path.touch, lambda path: path.symlink_to(path), os.mkfifo])(path)


def damaged(chance: random.Random, run: Path) -> str:
    """Damage one file of a run; says which, and how."""
    if chance.random() < 0.05:
        folders(chance, run)
        return "a folder"
    path = chance.choice(files_of(run))
    damage = chance.choice(WITH_JSON if is_json(path) and chance.random() < 0.8 else WITH_ANY)
    damage(chance, path)
    return f"{path.relative_to(run)}: {damage}"


# --- what must hold ------------------------------------------------------------------------
def call(capsys: Capture, *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    out, err = capsys.readouterr()
    for text in (out, err):
        odd = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs")} - {"\n", "\t"}
        assert not odd, f"{arguments} prints {odd}"
    assert "Traceback" not in err
    return code, out, err


def check(root: Path, capsys: Capture) -> None:
    """Every command that reads a run."""
    code, out, _ = call(capsys, "status")
    assert code == 0
    assert [row.split()[1] for row in out.splitlines() if row.startswith(GOOD)] == ["failed"]
    code, out, _ = call(capsys, "status", "--json")
    document = json.loads(out)
    assert GOOD in [run["run_id"] for run in document["runs"]]
    shown = len(document["runs"]) + len(document["unreadable"])
    assert shown == 1 + (root / BAD / "run.json").exists() or code == 0
    for arguments in (("status", BAD), ("status", BAD, "--json"), ("logs", BAD), ("cancel", BAD)):
        code, _, err = call(capsys, *arguments)
        assert code in (0, 2, 3)
        assert code == 0 or "rtdetr-slurm: " in err or arguments[0] == "cancel"
    on_the_node(root / BAD)


def on_the_node(folder: Path) -> None:
    """What the launch reads."""
    try:
        run = open_run(folder)
    except UserError:
        return
    for task in list(run.plan.tasks())[:9]:
        for read in (read_node_errors, resolve_inputs, input_binds, holder):
            try:
                read(run, task)
            except (UserError, FileNotFoundError):
                continue


def holder(run: Run, task: StageTask) -> str | None:
    """As another submission asks that wants the same results folder."""
    held = read_claim(task.results_dir)
    told = why_in_use(task.results_dir, held, report_of_record)
    assert str(held).isprintable()
    return told


@contextmanager
def copied(template: Path, root: Path) -> Iterator[Path]:
    shutil.copytree(template, root / BAD, symlinks=True)
    yield root / BAD
    shutil.rmtree(root / BAD)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return FakeSlurm(tmp_path / "bin")


PLAIN = re.compile(r"-X|show|job|--[a-z0-9-]+(=[A-Za-z0-9%|,:._+-]+)?|[0-9]+(_[0-9]+)?(,[0-9_]+)*")
"""What any program of Slurm's may be called with because of a record."""


def test_no_damage_reaches_a_command(tmp_path: Path, capsys: Capture, slurm: FakeSlurm) -> None:
    root = tmp_path / "runs"
    build(root, GOOD, ended=True)
    template = build(root, BAD, ended=False, scheduler="slurm").path.rename(tmp_path / "template")
    lines = [f"77|RUNNING|None|N/A|n|{token(BAD, name)}|" for name in ("train", "evaluate")]
    slurm.answer("squeue", f"echo '{lines[0]}'; echo '{lines[1]}'")
    for seed in range(SEEDS // 3):
        with copied(template, root) as run:
            chance = random.Random(f"slurm {seed}")
            events = sorted((run / "events").iterdir())
            for path in [chance.choice(events), run / "run.json"][: chance.randrange(1, 3)]:
                chance.choice(WITH_JSON)(chance, path)
            for arguments in (("status",), ("status", BAD), ("logs", BAD), ("cancel", BAD)):
                call(capsys, *arguments)
    called = {
        word
        for program in ("squeue", "sacct", "scontrol", "scancel")
        for line in slurm.calls(program)
        for word in line.split(" ")
    }
    assert slurm.calls("scancel")
    assert [word for word in sorted(called) if not PLAIN.fullmatch(word)] == []


@pytest.mark.parametrize("ended", [False, True])
def test_no_damage_hides_another_run_or_reaches_the_terminal(
    tmp_path: Path, capsys: Capture, ended: bool
) -> None:
    root = tmp_path / "runs"
    build(root, GOOD, ended=True)
    template = build(root, BAD, ended=ended).path.rename(tmp_path / "template")
    for seed in range(SEEDS):
        with copied(template, root) as run:
            how = damaged(random.Random(f"{ended} {seed}"), run)
            try:
                check(root, capsys)
            except BaseException as error:
                error.add_note(f"seed {seed}: {how}") if hasattr(error, "add_note") else None
                raise
