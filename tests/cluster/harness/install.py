"""Debian packages of the test cluster."""

from __future__ import annotations

import os
import subprocess

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


def missing_packages() -> list[str]:
    """The names in PACKAGES that dpkg does not list as installed."""
    query = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *PACKAGES],
        capture_output=True,
        text=True,
        check=False,  # it ends with 1 as soon as one name is unknown, and still lists the others
    )
    installed = {
        line.split()[0] for line in query.stdout.splitlines() if line.endswith(" installed")
    }
    return [name for name in PACKAGES if name not in installed]


def install_packages() -> None:
    """Install what is missing; no network use when nothing is.

    Raises:
        HarnessError: apt-get failed.
    """
    with locked("packages"):
        missing = missing_packages()
        if not missing:
            return
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        with timed(f"installing {' '.join(missing)}"):
            run(["apt-get", "-q", "update"], env=env)
            run(["apt-get", "-q", "install", "-y", "--no-install-recommends", *missing], env=env)
