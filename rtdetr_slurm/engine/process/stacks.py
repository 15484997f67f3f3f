"""Where a rank stands: its Python stacks, also while it is stuck in C or stopped.

The rank's faulthandler writes them on a signal, into memory that the process that has started it
can read; no file system is needed, which may be what the rank hangs in.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

STACKS = "RTDETR_STACKS"
"""Environment of a rank: the file descriptor that its stacks go to; unset: nobody asks for them."""
DUMP_SIGNAL = signal.SIGUSR1
STOPPED = frozenset("Tt")
"""The kernel's letters for a process that a signal, or a debugger, has stopped."""

_WAIT_SECONDS = 5.0
_POLL_SECONDS = 0.1

_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)$')
_NOT_OURS = re.compile(r"^<|/(site|dist)-packages/|/lib\d*/python3[^/]*/")
_OURS = "/rtdetr_slurm/"
_SAYS_NOTHING = "/engine/process/phases.py"
_WAITING = re.compile(
    r"/torch/distributed/|/torch/autograd/graph\.py$|/torch/cuda/|/engine/process/distributed\.py$"
)
_WAITING_FUNCTIONS = frozenset({"backward", "synchronize"})


@dataclass(frozen=True)
class Place:
    """Where a rank stands.

    Attributes:
        text: `FILE:LINE (function)` of the innermost frame that is not a library's, and the
            innermost of all where that is another; empty where there is no stack.
        waits: whether it does nothing but wait, for the other ranks or for its device.
    """

    text: str = ""
    waits: bool = False


def dump_on_signal(environ: Mapping[str, str]) -> None:
    """Have this rank write its stacks when it is asked to. The signal has been blocked so far, for
    it kills who does not expect it."""
    if STACKS in environ:
        faulthandler.register(DUMP_SIGNAL, file=int(environ[STACKS]), all_threads=True)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {DUMP_SIGNAL})


def ask_for_stacks(pids: Sequence[int], fds: Sequence[int]) -> list[str]:
    """The stacks of processes that have been given these descriptors for them, as text; empty for
    who does not answer. One that is stopped is so again afterwards, for it must not free those that
    wait for it before they have told where."""
    stopped = [pid for pid in pids if process_state(pid) in STOPPED]
    for pid in pids:
        for number in (DUMP_SIGNAL, signal.SIGCONT):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
    deadline, sizes = time.monotonic() + _WAIT_SECONDS, [0] * len(fds)
    while time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        before, sizes = sizes, [os.fstat(fd).st_size for fd in fds]
        if all(sizes) and sizes == before:
            break
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    return [
        os.pread(fd, size, 0).decode(errors="replace") for fd, size in zip(fds, sizes, strict=True)
    ]


def process_state(pid: int) -> str:
    """The kernel's letter for what a process does: R, S, D (waits in the kernel), T (stopped) …;
    empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def place_of(stacks: str) -> Place:
    """Where the main thread stands, by what faulthandler wrote."""
    frames = [match for line in _main_thread(stacks) if (match := _FRAME.match(line))]
    if not frames:
        return Place()
    telling = next((n for n, frame in enumerate(frames) if _tells(frame["file"])), 0)
    inner, shown = frames[0], frames[telling]
    text = _shown(shown)
    if inner is not shown:
        text += f", in {_shown(inner)}"
    waits = any(
        _WAITING.search(frame["file"]) or frame["function"] in _WAITING_FUNCTIONS
        for frame in frames[: telling + 1]
    )
    return Place(text, waits)


def _tells(file: str) -> bool:
    if _OURS in file:
        return not file.endswith(_SAYS_NOTHING)
    return not _NOT_OURS.search(file)


def _shown(frame: re.Match[str]) -> str:
    return f"{frame['file']}:{frame['line']} ({frame['function']})"


def _main_thread(stacks: str) -> list[str]:
    """The lines about the main thread: that which runs the module, else the one that was asked."""
    threads: list[list[str]] = [[]]
    for line in stacks.splitlines():
        if line.startswith(("Thread 0x", "Current thread 0x")):
            threads.append([])
        threads[-1].append(line)
    threads = [thread for thread in threads if len(thread) > 1]
    for thread in threads:
        if any("_run_module_as_main" in line for line in thread):
            return thread
    asked = [thread for thread in threads if thread[0].startswith("Current")]
    return (asked or threads or [[]])[-1]
