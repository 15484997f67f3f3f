"""Workers of one node: signals to them, exit codes from them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.engine.process.torchrun import children, exit_code, killed


class TestExitCodes:
    def test_exit_codes_of_several_workers(self) -> None:
        assert exit_code([75, 75]) == 75
        assert exit_code([75, 1]) == 1
        assert exit_code([1, 2]) == 2
        assert exit_code([-9]) == 1
        (failure,) = killed({0: 1, 3: -9})
        assert (failure.rank, failure.failure_class) == (3, FailureClass.OOM_HOST)
        assert killed({0: -11})[0].failure_class is FailureClass.UNKNOWN


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
