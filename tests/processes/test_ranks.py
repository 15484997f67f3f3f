"""The ranks of one node: their place, signals to them, exit codes from them, and that none is
left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest
from engine_support import LAUNCH
from fake_ranks import start_fake
from process_support import gone, pids_in

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.engine.process import ranks
from rtdetr_slurm.engine.process.ranks import (
    Cancelled,
    end_ranks,
    exit_code,
    kernel_kills,
    killed,
    rank_variables,
    run_ranks,
    torchrun_command,
)
from rtdetr_slurm.engine.process.rendezvous import Rendezvous, read_rendezvous
from rtdetr_slurm.spec import Topology

RENDEZVOUS = read_rendezvous(LAUNCH, ACTIONS["train"], Topology(2, 4, (0, 1, 2, 3)))


class TestPlace:
    def test_the_torchrun_command_that_does_the_same(self) -> None:
        assert torchrun_command(RENDEZVOUS, ["train", "-e", "my spec.yaml"]) == (
            "torchrun --nnodes=2 --node-rank=1 --nproc-per-node=4 --master-addr=node1 "
            "--master-port=29400 -m rtdetr_slurm.engine.process.worker train -e 'my spec.yaml'"
        )

    def test_ranks_are_told_what_torchrun_tells_them(self, tmp_path: Path) -> None:
        """Torchrun itself is asked."""
        ours = rank_variables(RENDEZVOUS, 3)
        assert (ours["RANK"], ours["WORLD_SIZE"], ours["LOCAL_RANK"]) == ("7", "8", "3")
        script = tmp_path / "rank.py"
        script.write_text("import os, json; print(json.dumps(dict(os.environ)))")
        alone = read_rendezvous(
            LAUNCH | {"WORLD_SIZE": "1", "NODE_RANK": "0", "NUM_GPU_PER_NODE": "1",
                      "MASTER_ADDR": "127.0.0.1"},
            ACTIONS["train"], Topology(1, 1, (0,)),
        )  # fmt: skip
        options = torchrun_command(alone, []).split()[1:-2]
        command = [sys.executable, "-m", "torch.distributed.run", *options, str(script)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        theirs = json.loads(done.stdout.splitlines()[-1])
        ours = rank_variables(alone, 0)
        assert ours == {name: theirs[name] for name in ours}


class TestExitCodes:
    def test_exit_codes_of_several_ranks(self) -> None:
        assert exit_code([0, 0]) == 0
        assert exit_code([75, 75]) == 75
        assert exit_code([75, 1]) == 1
        assert exit_code([0, 75]) == 1
        assert exit_code([1, 2]) == 2
        assert exit_code([-9]) == 1

    def test_a_killed_rank_is_out_of_memory_only_where_the_kernel_was(self) -> None:
        (failure,) = killed({0: 1, 3: -9}, starved=True)
        assert (failure.rank, failure.failure_class) == (3, FailureClass.OOM_HOST)
        (failure,) = killed({3: -9}, starved=False)
        assert failure.failure_class is FailureClass.UNKNOWN
        assert killed({0: -11}, starved=True)[0].failure_class is FailureClass.UNKNOWN
        real_time = signal.SIGRTMIN + 3
        assert f"ended by signal {real_time}" in killed({0: -real_time}, starved=False)[0].reason
        assert kernel_kills() is not None

    def test_a_failed_rank_ends_the_others(self) -> None:
        """What we end ourselves has not run out of memory."""
        launcher = start_fake("[ $RANK = 0 ] && exit 2; sleep 60", "2", "0.2")
        output, _ = launcher.communicate(timeout=10)
        assert launcher.returncode == 2
        assert output.splitlines()[-1] == "[]"

    def test_a_killed_rank_is_told(self) -> None:
        launcher = start_fake("[ $RANK = 1 ] && kill -9 $$; exit 1")
        output, _ = launcher.communicate(timeout=10)
        assert launcher.returncode == 1
        assert "rank 1 was killed by SIGKILL" in output


STOPS = """
import time
time.sleep(0.5)                       # as if importing torch: no handler yet
from rtdetr_slurm.engine.process.stop import StopFlag
stop = StopFlag(); stop.listen()
deadline = time.monotonic() + 10
while not stop.requested and time.monotonic() < deadline: time.sleep(0.01)
raise SystemExit(75 if stop.requested else 1)
"""
STUCK = "trap '' USR2 TERM HUP INT; echo $$ > $FOLDER/$RANK; kill -STOP $$; sleep 60"


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGURG, signal.SIGINT])
    def test_an_early_request_to_stop_reaches_all_ranks_and_kills_nothing(
        self, number: signal.Signals
    ) -> None:
        launcher = start_fake(f"exec {sys.executable} -c '{STOPS}'")
        assert launcher.stdout is not None
        launcher.stdout.readline()
        for _ in range(1 if number == signal.SIGINT else 3):
            launcher.send_signal(number)
            time.sleep(0.05)
        launcher.communicate(timeout=20)
        assert launcher.returncode == 75

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, None])
    def test_no_rank_outlives_the_launching_process(
        self, number: signal.Signals | None, tmp_path: Path
    ) -> None:
        """Whether it cancels them or is killed itself; they are stuck, and hear nothing."""
        launcher = start_fake(STUCK, env=os.environ | {"FOLDER": str(tmp_path)})
        ranks = pids_in(tmp_path, 2)
        launcher.send_signal(number or signal.SIGKILL)
        if number == signal.SIGINT:  # once is a request to stop
            assert launcher.stdout is not None
            assert any("once more ends it at once" in line for line in launcher.stdout)
            launcher.send_signal(number)
        output, _ = launcher.communicate(timeout=60)
        if number is not None:
            assert (launcher.returncode, output.splitlines()[-1]) == (
                1,
                f"stopped by {number.name}",
            )
        gone(ranks)


class Polled(subprocess.Popen[bytes]):
    """A process of which the first look is disturbed, by two ctrl-C."""

    looks: ClassVar[list[str]] = []

    def poll(self) -> int | None:
        if not self.looks:
            self.looks.append("begun")
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            self.looks.append("ended")
        return super().poll()


def test_no_signal_cuts_a_look_at_a_rank_short(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Popen.poll takes a lock: cut short, it would keep it, and the rank be waited for in vain."""
    monkeypatch.setattr(ranks, "rank_command", lambda *_: ["sleep", "60"])
    monkeypatch.setattr(ranks.subprocess, "Popen", Polled)
    alone = Rendezvous(1, 0, 1, "127.0.0.1", 20000, launched=False)
    # It is ignored by what a script's & starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(Cancelled, match="stopped by SIGINT"):
            run_ranks(alone, [], os.environ)
    finally:
        signal.signal(signal.SIGINT, before)
    assert Polled.looks == ["begun", "ended"]
    assert "ctrl-C once more ends it at once" in capfd.readouterr().out


class Held(subprocess.Popen[bytes]):
    """A process that the kernel holds: no signal ends it."""

    def kill(self) -> None:
        pass


def test_a_rank_that_cannot_be_ended_holds_nobody(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ranks, "_END_SECONDS", 0.2)
    with Held(["sleep", "60"]) as held, subprocess.Popen(["sleep", "60"]) as other:
        end_ranks([held, other])
        assert other.returncode == -signal.SIGKILL
        assert f"process {held.pid} was killed and does not end" in capfd.readouterr().out
        held.terminate()
