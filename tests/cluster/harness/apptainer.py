"""Apptainer from Debian's unstable suite, in a prefix of its own: no stable Debian carries it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from .debs import relocate, unpack
from .machine import HarnessError, cache_dir, locked, run, timed

MINIMUM = (1, 4)
SUITE = "sid"
LIBRARIES = ("libseccomp", "libsqlite3", "libgcc_s", "libsubid")
# A relocated Apptainer looks for these below its prefix.
SESSION_DIRS = ("usr/var/lib/apptainer/mnt/session", "usr/lib/var/lib/apptainer/mnt/session")
CONFIG_DIRS = ("usr/etc/apptainer", "usr/lib/etc/apptainer")


def environment() -> dict[str, str]:
    """Variables Apptainer needs here.

    Root in a virtual machine or a container may lack a capability that the privileged way asks
    for; in a user namespace Apptainer works as it does for an ordinary user of a cluster.
    """
    tmp = cache_dir() / "apptainer-tmp"
    tmp.mkdir(exist_ok=True)
    return {
        "APPTAINER_USERNS": "1",
        "APPTAINER_TMPDIR": str(tmp),
        "APPTAINER_CACHEDIR": str(cache_dir() / "apptainer-cache"),
    }


def apptainer() -> Path:
    """Path of an Apptainer >= 1.4: the machine's own where it has one, else ours.

    Raises:
        HarnessError: it can neither be found nor unpacked.
    """
    own = shutil.which("apptainer")
    if own and _version(Path(own)) >= MINIMUM:
        return Path(own).resolve()
    prefix = cache_dir() / "apptainer"
    program = prefix / "usr/bin/apptainer"
    with locked("apptainer"):
        if not program.exists():
            with timed(f"unpacking Apptainer from Debian {SUITE}"):
                _unpack(prefix)
    return program


def _version(program: Path) -> tuple[int, int]:
    text = run([program, "--version"], env={**os.environ, **environment()})
    found = re.search(r"(\d+)\.(\d+)", text)
    if not found:
        raise HarnessError(f"{program} --version says {text!r}: no version number in it")
    return int(found[1]), int(found[2])


def _unpack(prefix: Path) -> None:
    unpack(prefix, SUITE, "apptainer")
    for name in CONFIG_DIRS:
        shutil.copytree(prefix / "etc/apptainer", prefix / name)
    for name in SESSION_DIRS:
        (prefix / name).mkdir(parents=True)
    program = prefix / "usr/bin/apptainer"
    starters = [*prefix.glob("usr/lib/**/apptainer/bin/starter*")]
    libraries = [path for path in prefix.rglob("*.so*") if path.name.startswith(LIBRARIES)]
    try:
        relocate(prefix, [program, *starters], [p for p in libraries if not p.is_symlink()])
        _version(program)
    except HarnessError:
        shutil.rmtree(prefix)
        raise


def apptainer_run(*arguments: str | Path, timeout: float = 600) -> str:
    """Run Apptainer with the harness's environment and return its stdout."""
    done = subprocess.run(
        [str(apptainer()), *map(str, arguments)],
        env={**os.environ, **environment()},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise HarnessError(f"apptainer {arguments} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout
