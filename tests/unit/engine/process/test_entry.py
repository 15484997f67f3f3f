"""The `rtdetr` command up to the start of its workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from engine_support import Workspace, workspace  # noqa: F401

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.devices import chosen_devices
from rtdetr_slurm.engine.process import failures
from rtdetr_slurm.engine.process.arguments import parse
from rtdetr_slurm.engine.process.distributed import choose_accelerator
from rtdetr_slurm.engine.process.entry import command
from rtdetr_slurm.engine.process.failures import (
    RankFailure,
    explain,
    leave_note,
    read_notes,
    root_cause,
)
from rtdetr_slurm.engine.process.rendezvous import Rendezvous, read_rendezvous
from rtdetr_slurm.engine.process.status_end import StatusEnd
from rtdetr_slurm.engine.process.torchrun import children, exit_code, killed, torchrun_arguments
from rtdetr_slurm.errors import ActionError, RequestError, SiteError
from rtdetr_slurm.runs.failures import ADVICE
from rtdetr_slurm.runs.status import last_status
from rtdetr_slurm.spec import Topology, load_spec


def error_of(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    code = command(argv)
    return code, capsys.readouterr().err


class TestArguments:
    def test_in_any_order(self) -> None:
        expected = parse(["train", "-e", "s.yaml", "a=1", "b.c=2", "--bad-images", "skip"])
        assert (
            parse(
                [
                    "train",
                    "a=1",
                    "--experiment_spec_file",
                    "s.yaml",
                    "--bad-images",
                    "skip",
                    "b.c=2",
                ]
            )
            == expected
        )
        assert parse(expected.command_line()) == expected
        assert expected.overrides == ("a=1", "b.c=2")

    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            (["gen_trt_engine", "-e", "s.yaml"], "gen_trt_engine is a deploy action"),
            (["export", "-e", "s.yaml"], "export is not available in this version yet"),
            (["trian", "-e", "s.yaml"], "no action 'trian'; allowed: train, evaluate"),
            (["train"], "rtdetr train needs a spec file: -e FILE"),
            (["train", "-e", "s.yaml", "num_gpus"], "unexpected argument 'num_gpus'"),
        ],
    )
    def test_refused(
        self, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
    ) -> None:
        code, error = error_of(capsys, *argv)
        assert code == 2
        assert message in error
        assert "Traceback" not in error

    def test_wrong_spec_is_a_wrong_request(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "spec.yaml"
        path.write_text("train:\n  num_epocs: 3\n")
        code, error = error_of(capsys, "train", "-e", str(path))
        assert code == 2
        assert "num_epocs" in error
        assert "num_epochs" in error


class TestDefaultSpecs:
    def test_writes_what_loads(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert command(["default_specs", f"results_dir={tmp_path}/new"]) == 0
        path = Path(capsys.readouterr().out.strip())
        assert path == tmp_path / "new" / "experiment.yaml"
        source = "dataset.train_data_sources=[{image_dir: /i, json_file: /j}]"
        assert load_spec(path, [source], action="train").experiment.train.num_epochs == 10

    def test_never_overwrites(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "experiment.yaml").write_text("mine")
        code, error = error_of(capsys, "default_specs", f"results_dir={tmp_path}")
        assert (code, (tmp_path / "experiment.yaml").read_text()) == (2, "mine")
        assert "exists already and is left as it is" in error

    @pytest.mark.parametrize("argv", [[], ["results_dir="], ["results_dir=a", "b=c"]])
    def test_needs_a_folder(self, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert error_of(capsys, "default_specs", *argv)[0] == 2


TRAIN = ACTIONS["train"]
LAUNCH = {
    "WORLD_SIZE": "2",
    "NODE_RANK": "1",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29400",
    "NUM_GPU_PER_NODE": "4",
}


class TestRendezvous:
    asked = Topology(2, 4, (0, 1, 2, 3))

    def test_of_a_launch(self) -> None:
        assert read_rendezvous(LAUNCH, TRAIN, self.asked) == Rendezvous(
            2, 1, 4, "node1", 29400, True
        )

    def test_rank_stands_in_for_node_rank(self) -> None:
        launch = {k: v for k, v in LAUNCH.items() if k != "NODE_RANK"} | {"RANK": "1"}
        assert read_rendezvous(launch, TRAIN, self.asked).node_rank == 1

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"WORLD_SIZE": "3"}, r"the launch has WORLD_SIZE=3, the spec has train\.num_nodes=2"),
            ({"NUM_GPU_PER_NODE": "8"}, r"NUM_GPU_PER_NODE=8, the spec has train\.num_gpus=4"),
            ({"NODE_RANK": "2"}, "NODE_RANK is 2; allowed is 0 to 1"),
            ({"NODE_RANK": "one"}, "NODE_RANK is 'one', which is not a whole number"),
            ({"WORLD_SIZE": "0"}, "WORLD_SIZE is 0; allowed is at least 1"),
            ({"MASTER_PORT": "80"}, "MASTER_PORT is 80; allowed is 1024 to 65535"),
            ({"MASTER_PORT": None}, "MASTER_PORT is not: the launch is incomplete"),
            ({"MASTER_ADDR": None}, "MASTER_ADDR is not set"),
            ({"NUM_GPU_PER_NODE": None}, "NUM_GPU_PER_NODE is not: the launch is incomplete"),
            ({"WORLD_SIZE": None}, r"train\.num_nodes is 2, but WORLD_SIZE .* is not set"),
        ],
    )
    def test_what_does_not_agree(self, change: dict[str, str | None], message: str) -> None:
        launch = {k: v for k, v in (LAUNCH | change).items() if v is not None}
        with pytest.raises(SiteError, match=message):
            read_rendezvous(launch, TRAIN, self.asked)

    def test_by_hand(self) -> None:
        rendezvous = read_rendezvous({}, TRAIN, Topology(1, 2, (0, 1)))
        assert (rendezvous.nodes, rendezvous.processes_per_node, rendezvous.launched) == (
            1,
            2,
            False,
        )
        assert rendezvous.master_addr == "127.0.0.1"
        arguments = torchrun_arguments(rendezvous, ["train", "-e", "s.yaml"])
        assert "--nproc-per-node=2" in arguments
        assert arguments[-4:] == ["rtdetr_slurm.engine.process.worker", "train", "-e", "s.yaml"]

    def test_gpu_ids_count_within_what_is_visible(self) -> None:
        assert chosen_devices([2, 3], None) == "2,3"
        assert chosen_devices([0, 2], "4,5,GPU-abc") == "4,GPU-abc"
        with pytest.raises(SiteError, match=r"gpu_ids .* need at least 3 devices"):
            chosen_devices([0, 2], "4,5")

    def test_accelerator(self) -> None:
        assert choose_accelerator("cpu") == "cpu"
        with pytest.raises(SiteError, match="RTDETR_ACCELERATOR is 'tpu'; allowed are"):
            choose_accelerator("tpu")

    def test_mismatch_ends_status_json(
        self,
        workspace: Workspace,  # noqa: F811
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        for name, value in (LAUNCH | {"NODE_RANK": "0"}).items():
            monkeypatch.setenv(name, value)
        code, error = error_of(capsys, "train", "-e", str(workspace.spec_file()))
        assert code == 3
        assert "the launch has WORLD_SIZE=2" in error
        last = workspace.status()[-1]
        assert (last["status"], last["failure_class"]) == ("FAILURE", "infra")
        assert "WORLD_SIZE=2" in last["reason"]

    @pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="a GPU is there")
    def test_missing_gpu_ends_status_json(
        self,
        workspace: Workspace,  # noqa: F811
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("RTDETR_ACCELERATOR", "cuda")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        code, error = error_of(capsys, "train", "-e", str(workspace.spec_file()))
        assert code == 3
        assert "sees no CUDA device" in error
        assert workspace.status()[-1]["status"] == "FAILURE"


class TestResultsFolder:
    @pytest.mark.parametrize("below", ["file", "/proc"])
    def test_unwritable(
        self,
        workspace: Workspace,  # noqa: F811
        capsys: pytest.CaptureFixture[str],
        below: str,
    ) -> None:
        """Also for root: below a file, and where the kernel takes no files."""
        (workspace.root / "file").write_text("")
        folder = workspace.root / below / "results"
        spec = workspace.spec_file(results_dir=str(folder))
        code, error = error_of(capsys, "train", "-e", str(spec))
        assert code == 1
        assert f"results_dir {folder}/train is not writable" in error
        assert "Traceback" not in error

    def test_unset(self, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
        code, error = error_of(capsys, "train", "-e", str(workspace.spec_file(results_dir="")))
        assert code == 2
        assert "results_dir is not set: set it, or train.results_dir" in error


class TestFailures:
    def note(self, rank: int, when: float, **fields: Any) -> RankFailure:
        return RankFailure(rank, FailureClass.UNKNOWN, f"rank {rank}", time=when, **fields)

    def test_root_cause_is_the_first_own_failure(self) -> None:
        first, second = self.note(3, 2.0), self.note(1, 3.0)
        peer = self.note(0, 1.0, by_peer=True)
        assert root_cause([peer, second, first]) == first
        assert root_cause([peer]) == peer
        assert root_cause([]) is None

    def test_notes_come_back(self, tmp_path: Path) -> None:
        notes = [self.note(2, 5.0), self.note(1, 7.0, by_peer=True)]
        for note in reversed(notes):
            leave_note(tmp_path, note)
        assert read_notes(tmp_path) == notes
        failures.remove_notes(tmp_path)
        assert read_notes(tmp_path) == []

    def test_explains_what_users_can_change(self, tmp_path: Path) -> None:
        import torch

        def of(error: BaseException, world_size: int = 1) -> RankFailure:
            return explain(error, 0, world_size)

        assert of(RequestError("x")).exit_code == 2
        assert of(ActionError("x")).failure_class is FailureClass.CONFIG
        oom = of(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
        assert oom.failure_class is FailureClass.OOM_GPU
        assert oom.reason == "CUDA out of memory. Tried to allocate 2 GiB"
        assert str(oom) == f"{oom.reason}. {ADVICE[FailureClass.OOM_GPU]}"
        assert of(MemoryError()).failure_class is FailureClass.OOM_HOST
        full = of(OSError(28, "No space left on device", "/data/x"))
        assert "no space left to write /data/x" in full.reason
        bug = of(KeyError("x"))
        assert (bug.failure_class, bug.expected) == (FailureClass.UNKNOWN, False)
        lost = RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
        assert of(lost, 2).by_peer
        assert not of(lost, 1).by_peer
        killed_loader = RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed.")
        assert of(killed_loader).failure_class is FailureClass.OOM_HOST

    def test_exit_codes_of_several_workers(self) -> None:
        assert exit_code([75, 75]) == 75
        assert exit_code([75, 1]) == 1
        assert exit_code([1, 2]) == 2
        assert exit_code([-9]) == 1
        (failure,) = killed({0: 1, 3: -9})
        assert (failure.rank, failure.failure_class) == (3, FailureClass.OOM_HOST)
        assert killed({0: -11})[0].failure_class is FailureClass.UNKNOWN

    def test_node_0_writes_the_end_once(self, tmp_path: Path) -> None:
        ending = StatusEnd(tmp_path, is_main=True)
        leave_note(tmp_path, self.note(2, 1.0))
        ending.explain([self.note(0, 0.5, by_peer=True)])
        ending.explain([self.note(1, 9.0)])
        path = tmp_path / "status.json"
        assert len(path.read_text().splitlines()) == 1
        last = last_status(path)
        assert last is not None
        assert last["reason"] == "rank 2"

    def test_other_nodes_leave_notes(self, tmp_path: Path) -> None:
        StatusEnd(tmp_path, is_main=False).explain([self.note(5, 1.0)])
        assert not (tmp_path / "status.json").exists()
        assert [note.rank for note in read_notes(tmp_path)] == [5]


PARENT = """
import os, subprocess, sys, threading, time
from rtdetr_slurm.engine.process.stop import hold_signals
hold_signals()                        # before torch starts threads that would not hold them
from rtdetr_slurm.engine.process.torchrun import SignalForwarder
forwarder = SignalForwarder(); forwarder.start()
print("ready", flush=True)
time.sleep(1.0)                       # the signal comes now: there is no child yet
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
code = child.wait()
forwarder.end()
sys.exit(code)
"""
CHILD = """
import time
time.sleep(0.5)                       # as if importing torch: no handler yet
from rtdetr_slurm.engine.process.stop import StopFlag
stop = StopFlag(); stop.listen()
deadline = time.monotonic() + 10
while not stop.requested and time.monotonic() < deadline: time.sleep(0.01)
raise SystemExit(75 if stop.requested else 1)
"""


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
    def test_early_signal_reaches_workers_and_kills_nothing(self, number: signal.Signals) -> None:
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True
        )
        assert parent.stdout is not None
        parent.stdout.readline()
        for _ in range(3):
            parent.send_signal(number)
            time.sleep(0.05)
        parent.communicate(timeout=30)
        assert parent.returncode == 75

    def test_finds_children(self) -> None:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
        try:
            assert child.pid in children(os.getpid())
        finally:
            child.kill()
            child.wait()
        assert child.pid not in children(os.getpid())
