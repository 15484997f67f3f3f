"""What the machine offers: its folders, its commands, and whether the harness can work on it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]


class HarnessError(RuntimeError):
    """The machine cannot do what the harness needs; the message says what and why."""


def cache_dir() -> Path:
    """Folder of everything that outlives a test session; never inside the repository."""
    named = os.environ.get("RTDETR_TEST_CACHE")
    path = Path(named) if named else Path.home() / ".cache" / "rtdetr-slurm-tests"
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def os_release() -> dict[str, str]:
    """The fields of /etc/os-release, without quotes."""
    lines = Path("/etc/os-release").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {key: value.strip('"') for key, value in pairs}


def why_not() -> str | None:
    """The reason why the harness cannot work on this machine, or None when it can."""
    if not sys.platform.startswith("linux") or not Path("/etc/debian_version").exists():
        return "these tests install Debian packages; this machine is not a Debian"
    if os_release().get("ID") != "debian":
        return f"these tests need Debian, this is {os_release().get('PRETTY_NAME')}"
    if os.geteuid() != 0:
        return "these tests need root (packages, slurmd, /etc/hosts); run them as root"
    return None


def log(message: str) -> None:
    """One line of progress on stderr."""
    print(f"[harness] {message}", file=sys.stderr, flush=True)


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 600,
) -> str:
    """Run a command to its end and return its stdout.

    Raises:
        HarnessError: the command failed; carries its last lines of output.
    """
    words = [str(word) for word in command]
    done = subprocess.run(
        words, env=env, cwd=cwd, timeout=timeout, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
        raise HarnessError(f"{' '.join(words)} ended with {done.returncode}:\n{tail}")
    return done.stdout


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock `name`: two test sessions never build the same thing at once."""
    with (cache_dir() / f"{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"waiting for another process that holds {handle.name}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Log how long the body took."""
    start = time.monotonic()
    log(f"{what} …")
    yield
    log(f"{what}: {time.monotonic() - start:.1f} s")
