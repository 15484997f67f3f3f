"""Debian packages of the tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from .machine import locked, run, timed

PACKAGES = (
    "slurm-wlm",
    "slurmdbd",
    "munge",
    "mariadb-server",
    "squashfuse",
    "squashfs-tools",
    "fuse-overlayfs",
    "uidmap",
    "patchelf",
    "debootstrap",
)


def missing_packages(names: Sequence[str]) -> list[str]:
    """Those that dpkg does not list as installed."""
    query = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *names],
        capture_output=True,
        text=True,
        check=False,  # it ends with 1 as soon as one name is unknown, and still lists the others
    )
    installed = {
        line.split()[0] for line in query.stdout.splitlines() if line.endswith(" installed")
    }
    return [name for name in names if name not in installed]


def install_packages(names: Sequence[str] = PACKAGES) -> None:
    """Install what is missing of some packages; no network use when nothing is.

    Raises:
        HarnessError: apt-get failed.
    """
    with locked("packages"):
        missing = missing_packages(names)
        if not missing:
            return
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        with timed(f"installing {' '.join(missing)}"):
            run(["apt-get", "-q", "update"], env=env)
            run(["apt-get", "-q", "install", "-y", "--no-install-recommends", *missing], env=env)
