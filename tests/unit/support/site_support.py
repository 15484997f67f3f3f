"""A login node with its profiles, for the tests of site."""

from __future__ import annotations

from pathlib import Path

from rtdetr_slurm.site.discover import FoundSite, find_site
from rtdetr_slurm.site.profile import Site


class Machine:
    """A login node: its home folder, its /etc, and what is on PATH."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.admin = root / "etc" / "site.yaml"
        self.env = {"HOME": str(root / "home"), "PATH": str(root / "bin")}
        (root / "bin").mkdir()

    def install_slurm(self) -> None:
        sbatch = self.root / "bin" / "sbatch"
        sbatch.write_text("#!/bin/sh\n")
        sbatch.chmod(0o755)

    def write(self, where: str, text: str) -> Path:
        path = self.root / where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def write_user(self, text: str) -> Path:
        return self.write("home/.config/rtdetr-slurm/site.yaml", text)

    def write_admin(self, text: str) -> Path:
        return self.write("etc/site.yaml", text)

    def find(self, option: str | Path | None = None) -> FoundSite:
        return find_site(None if option is None else str(option), self.env, admin=self.admin)

    def site(self, option: str | Path | None = None) -> Site:
        return self.find(option).site
