"""A newer Slurm than this machine's release carries, from another suite of Debian."""

from __future__ import annotations

import os
from pathlib import Path

from .debs import relocate, unpack
from .machine import HarnessError, cache_dir, locked, run, timed

VARIABLE = "RTDETR_TEST_SLURM"
"""Name of the suite, such as trixie, whose Slurm the cluster is to run; unset: the machine's."""
PACKAGES = ("slurm-wlm", "slurmdbd")
DAEMONS = ("slurmctld", "slurmd", "slurmstepd", "slurmdbd")
CLIENTS = ("sacct", "sacctmgr", "sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
PLUGINS = "usr/lib/*/slurm-wlm"


def suite() -> str | None:
    """The suite whose Slurm is meant; None: what the machine has installed."""
    return os.environ.get(VARIABLE) or None


def newer_slurm(name: str) -> Path:
    """Prefix with the Slurm of a suite; its programs, and no others, are in `bin`.

    Raises:
        HarnessError: it cannot be unpacked, or does not run here.
    """
    prefix = cache_dir() / f"slurm-of-{name}"
    with locked(prefix.name):
        if not (prefix / "bin").exists():
            with timed(f"unpacking Slurm from Debian {name}"):
                unpack(prefix, name, *PACKAGES)
                programs = {program: _find(prefix, program) for program in (*DAEMONS, *CLIENTS)}
                plugins = plugin_dir(prefix).glob("*.so*")
                relocate(prefix, programs.values(), [p for p in plugins if not p.is_symlink()])
                run([programs["slurmctld"], "-V"])
                links = prefix / "bin.partial"
                links.mkdir()
                for program, path in programs.items():
                    (links / program).symlink_to(path)
                links.rename(prefix / "bin")
    return prefix


def plugin_dir(prefix: Path) -> Path:
    """Where the plugins of that Slurm are."""
    [found] = prefix.glob(PLUGINS)
    return found


def _find(prefix: Path, program: str) -> Path:
    # Debian has a suffix for the daemons of which there are several builds.
    for name in (program, f"{program}-wlm"):
        for folder in ("usr/bin", "usr/sbin"):
            if (path := prefix / folder / name).is_file():
                return path.resolve()
    raise HarnessError(f"there is no {program} among the packages {', '.join(PACKAGES)}")
