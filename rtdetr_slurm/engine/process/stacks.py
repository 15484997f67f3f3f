"""Where a rank and its loading processes stand: their Python stacks, also while they are stuck in C
or stopped.

Their faulthandler writes them on a signal, into memory that the process that has started the ranks
can read; no file system is needed, which may be what they hang in.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

STACKS = "RTDETR_STACKS"
"""Environment of a rank: the file descriptor that its stacks go to; unset: nobody asks for them."""
DUMP_SIGNAL = signal.SIGUSR1
STOPPED = frozenset("Tt")
"""The kernel's letters for a process that a signal, or a debugger, has stopped."""

_LOADING = "stacks-of-loading"
_WAIT_SECONDS = 5.0
_POLL_SECONDS = 0.1

_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)$')
_NOT_OURS = re.compile(r"^<|/(site|dist)-packages/|/lib\d*/python3[^/]*/")
_OURS = "/rtdetr_slurm/"
_SAYS_NOTHING = "/engine/process/phases.py"
_WAITING = re.compile(
    r"/torch/distributed/|/torch/autograd/graph\.py$|/torch/cuda/|/engine/process/(distributed|meeting)\.py$"
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


def dump_apart(environ: Mapping[str, str]) -> None:
    """Have this loading process write its stacks into memory of its own when it is asked to."""
    if STACKS in environ:
        memory = os.memfd_create(_LOADING)
        faulthandler.register(DUMP_SIGNAL, file=memory, all_threads=True)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {DUMP_SIGNAL})


def ask_for_stacks(pids: Sequence[int], fds: Sequence[int]) -> list[str]:
    """The stacks of processes that have been given these descriptors for them, as text; empty for
    who does not answer. One that is stopped is so again afterwards, for it must not free those that
    wait for it before they have told where."""
    stopped = [pid for pid in pids if process_state(pid) in STOPPED]
    held = [os.fstat(fd).st_size for fd in fds]
    for pid in pids:
        for number in (DUMP_SIGNAL, signal.SIGCONT):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
    deadline, sizes = time.monotonic() + _WAIT_SECONDS, held
    while pids and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        before, sizes = sizes, [os.fstat(fd).st_size for fd in fds]
        if sizes == before and all(size > old for size, old in zip(sizes, held, strict=True)):
            break
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    return [
        os.pread(fd, size - old, old).decode(errors="replace")
        for fd, size, old in zip(fds, sizes, held, strict=True)
    ]


def ask_loaders(ranks: Sequence[int]) -> list[str]:
    """The stacks of the loading processes of each rank, a process, under a line for each; empty
    where it has none."""
    parents = {pid: _state_and_parent(pid)[1] for pid in _processes()}
    loaders: list[tuple[int, int, int]] = []  # the rank's place in the list, process, descriptor
    with ExitStack() as opened:
        for pid, server in parents.items():
            rank = parents.get(server)
            if rank in ranks and _catches(pid, DUMP_SIGNAL) and (fd := _memory_of(pid)) is not None:
                opened.callback(os.close, fd)
                loaders.append((ranks.index(rank), pid, fd))
        told = ask_for_stacks([pid for _, pid, _ in loaders], [fd for *_, fd in loaders])
    texts = [""] * len(ranks)
    for (place, pid, _), text in zip(loaders, told, strict=True):
        says = f":\n{text}" if text else " gave no stack\n"
        texts[place] += f"\nloading process {pid} ({process_state(pid)}){says}"
    return texts


def _processes() -> list[int]:
    return [int(one.name) for one in Path("/proc").iterdir() if one.name.isdecimal()]


def _memory_of(loader: int) -> int | None:
    """A descriptor of the memory that a loading process writes its stacks to."""
    with suppress(OSError):  # it has ended
        for descriptor in Path(f"/proc/{loader}/fd").iterdir():
            if str(descriptor.readlink()).startswith(f"/memfd:{_LOADING}"):
                return os.open(descriptor, os.O_RDONLY)
    return None


def process_state(pid: int) -> str:
    """The kernel's letter for what a process does: R, S, D (waits in the kernel), T (stopped) …;
    empty where there is none."""
    return _state_and_parent(pid)[0]


def _state_and_parent(pid: int) -> tuple[str, int]:
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return "", 0
    return state, int(parent)


def _catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


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
