"""Two ranks that are stopped whenever it is least convenient, and go on: in the end their last
checkpoint is, to the last bit, that of a training that was never stopped."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from distill_support import BINDINGS, write_teacher
from engine_support import StopAt, Workspace, session_of, workspace  # noqa: F401
from ranks import run_ranks

from rtdetr_slurm.engine.actions.distill import distill
from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.process.distributed import Context
from rtdetr_slurm.engine.process.phases import Phase, Phases
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.process.stop import Interrupted, StopFlag
from rtdetr_slurm.runs.checkpoint_content import compare_checkpoints
from rtdetr_slurm.runs.status import read_status
from rtdetr_slurm.spec import load_spec

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)

TWO_RANKS = ["train.num_gpus=2", "dataset.batch_size=2", "train.checkpoint_interval=1"]
AVERAGED = ["train.enable_ema=true", "train.ema.decay=0.9", "model.dropout_ratio=0.1"]
ACTIONS = {"train": train, "distill": distill}
LAST = "model_epoch_001.pth"


def asked_while_saving(session: Session) -> Session:
    stop = StopFlag()

    def ask(phases: Phases) -> None:
        stop.requested |= phases.now.phase is Phase.SAVING

    session.phases.observers.append(ask)
    return replace(session, stop=stop)


def stopped_again_and_again(
    context: Context, spec: Path, action: str, overrides: list[str], root: Path
) -> None:
    """An epoch has three steps and a validation of two."""

    def session(name: str) -> Session:
        loaded = load_spec(spec, [*overrides, f"results_dir={root / name}"], action=action)
        return session_of(loaded, context)

    ACTIONS[action](session("whole"))
    os.environ["RTDETR_RESUME"] = "1"
    asked_at = [
        (1, StopAt(0)),  # at once, and this is the first of three steps
        (0, StopAt(3)),  # in the middle of the validation
        (1, StopAt(0)),  # at its beginning, for it is validated anew
        (1, None),  # while the epoch is saved once more
        (0, StopAt(3)),  # after the first step of the second epoch
    ]
    for rank, stop in asked_at:
        stopped = session("stopped")
        if rank == context.rank:
            one = asked_while_saving(stopped) if stop is None else replace(stopped, stop=stop)
            stopped = one
        with pytest.raises(Interrupted):
            ACTIONS[action](stopped)
    ACTIONS[action](session("stopped"))


@pytest.mark.parametrize("what", ["ddp", "fsdp", "distill"])
def test_stopped_again_and_again(workspace: Workspace, what: str) -> None:
    overrides = [*TWO_RANKS, *AVERAGED]
    action = "train"
    if what == "fsdp":
        overrides.append("train.distributed_strategy=fsdp")
    if what == "distill":
        action = "distill"
        bindings = [*BINDINGS, BINDINGS[0] | {"criterion": "L2"}]
        overrides.append(f"distill.bindings={json.dumps(bindings)}")
        overrides.append(f"distill.pretrained_teacher_model_path={write_teacher(workspace)}")
    spec, root = workspace.spec_file(), workspace.root
    run_ranks(stopped_again_and_again, spec, action, overrides, root, timeout=300)

    whole, stopped = (root / name / action for name in ("whole", "stopped"))
    found = compare_checkpoints(
        whole / LAST, stopped / LAST, but={str(stopped.parent): str(whole.parent)}
    )
    assert found.differences == []
    assert found.tensors > 100
    names = {path.name for path in stopped.glob("*.pth")}
    assert names == {"model_epoch_000.pth", LAST}
    kpis, again = (
        {
            line["epoch"]: line["kpi"]
            for line in read_status(folder / "status.json")
            if "epoch" in line
        }
        for folder in (whole, stopped)
    )
    assert kpis == again
    assert kpis.keys() == {0, 1}
