"""Daemons with pid files that can be trusted: started, recognised and stopped, never by name."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from rtdetr_slurm.contract import Env

from .machine import HarnessError

_STARTED: list[subprocess.Popen[bytes]] = []
"""Keeps the handles: Python reaps its children through them, and warns when one is dropped."""


def start(name: str, command: Sequence[str | Path], state: Path, env: Mapping[str, str]) -> None:
    """Start a daemon in the foreground mode of its own session, with pid and log in `state`."""
    with (state / "log" / f"{name}.out").open("ab") as out:
        process = subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=state,
            start_new_session=True,
        )
    _STARTED.append(process)
    (state / "pid" / name).write_text(f"{process.pid} {_birth(process.pid)}")


def alive(name: str, state: Path) -> bool:
    """Whether the daemon started under this name still runs."""
    return _recorded(state / "pid" / name) is not None


def stop(names: Iterable[str], state: Path, grace: float) -> None:
    """Stop these daemons, in this order, each with TERM and after `grace` seconds with KILL;
    without grace with KILL alone."""
    for name in names:
        pid = _recorded(state / "pid" / name)
        if pid is not None:
            _end([pid], grace)
        (state / "pid" / name).unlink(missing_ok=True)


def stop_job_steps(state: Path, grace: float = 2, node: str = "*") -> None:
    """Kill what Slurm daemons that died left running: each slurmstepd of ours, or of one of our
    nodes, and all below it; `grace` seconds after TERM."""
    steps = [pid for pid in _all_pids() if _is_our_step(pid, state, node)]
    _end(_with_descendants(steps), grace)


def wait_for(what: str, ready: Sequence[str | Path], env: Mapping[str, str], seconds: float) -> str:
    """Repeat the command until it ends with 0; returns its stdout.

    Raises:
        HarnessError: it did not within `seconds`; carries its last answer.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = subprocess.run(
            [str(word) for word in ready],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode == 0:
            return answer.stdout
        if time.monotonic() > deadline:
            raise HarnessError(
                f"{what} is not ready after {seconds:.0f} s: {answer.stdout}{answer.stderr}"
            )
        time.sleep(0.1)


def find(program: str) -> list[int]:
    """Processes whose first word of the command line is `program`."""
    found = []
    for pid in _all_pids():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words[0] == program.encode():
            found.append(pid)
    return found


def ranks_of(claim: str) -> list[dict[str, str]]:
    """The environments of the living ranks of one stage of a run (`RUN:STAGE`), by rank; their
    process ids under `pid`."""
    found = []
    for pid in _all_pids():
        process = Path(f"/proc/{pid}")
        try:
            command = (process / "cmdline").read_bytes()
            text = (process / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue  # it has ended, or is another's
        env = dict(item.split("=", 1) for item in text.split("\0") if "=" in item)
        own = env.get(Env.CLAIM) == claim and "LOCAL_RANK" in env
        if own and b"rtdetr_slurm.engine.process.worker" in command:
            found.append(env | {"pid": str(pid)})
    return sorted(found, key=lambda env: int(env["RANK"]))


# --- /proc ---------------------------------------------------------------------------------
def _birth(pid: int) -> str:
    """Start time of a process in clock ticks since boot; empty when there is none (or a zombie).

    With the pid it names one process for good: a reused pid has another start time.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _recorded(pid_file: Path) -> int | None:
    if not pid_file.exists():
        return None
    pid, _, birth = pid_file.read_text().partition(" ")
    return int(pid) if birth and _birth(int(pid)) == birth else None


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _is_our_step(pid: int, state: Path, node: str) -> bool:
    """Whether this is a slurmstepd that has the log of one of our nodes open."""
    process = Path(f"/proc/{pid}")
    try:
        if not (process / "exe").readlink().name.startswith("slurmstepd"):
            return False
        opened = [str(entry.readlink()) for entry in (process / "fd").iterdir()]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return any(fnmatch(target, f"{state}/log/slurmd-{node}.log") for target in opened)


def _with_descendants(roots: list[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid in _all_pids():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(stat[1]), []).append(pid)
    found: list[int] = []
    queue = list(roots)
    while queue:
        pid = queue.pop()
        if pid not in found:
            found.append(pid)
            queue.extend(children.get(pid, []))
    return found


def _end(pids: list[int], grace: float) -> None:
    births = {pid: _birth(pid) for pid in pids}

    def running() -> list[int]:
        return [pid for pid, birth in births.items() if birth and _birth(pid) == birth]

    asked = [(signal.SIGTERM, grace)] if grace else []
    for number, seconds in (*asked, (signal.SIGKILL, 5.0)):
        for pid in running():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + seconds
        while running() and time.monotonic() < deadline:
            time.sleep(0.05)
