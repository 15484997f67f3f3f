"""Packages of another Debian suite, unpacked into a prefix of their own and made to run there.

A newer suite needs a newer libc than this machine has. So its packages and all that they need are
unpacked beside each other, and the programs are told (patchelf) to use that loader and those
libraries; the system's own stay untouched.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from .machine import HarnessError, os_release, run

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def unpack(prefix: Path, suite: str, *packages: str) -> None:
    """Put packages and all that they depend on into an empty `prefix`, whole or not at all there.

    Raises:
        HarnessError: they cannot be had.
    """
    partial = prefix.with_name(f"{prefix.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    debs = partial / "debs"
    debs.mkdir(parents=True)
    for deb in _download(debs, suite, packages):
        run(["dpkg", "-x", deb, partial])
    shutil.rmtree(debs)
    # The loader's path is written into the programs, so they are patched in their final place.
    shutil.rmtree(prefix, ignore_errors=True)
    partial.rename(prefix)


def relocate(prefix: Path, programs: Iterable[Path], libraries: Iterable[Path]) -> None:
    """Make programs, and libraries that name a place for others, use what is in `prefix`."""
    loaders = [path for path in prefix.rglob("ld-linux*.so*") if path.is_file()]
    if not loaders:
        raise HarnessError(f"no dynamic loader in {prefix}: libc6 was not unpacked")
    folders = sorted({path.parent for path in prefix.rglob("*.so*") if path.is_file()})
    rpath = ":".join(str(path) for path in folders)
    programs = [*programs]
    for program in programs:
        run(["patchelf", "--set-interpreter", loaders[0], program])
    for binary in (*programs, *libraries):
        run(["patchelf", "--force-rpath", "--set-rpath", rpath, binary])


def debian_mirror() -> str:
    """Address of the archive this machine's apt takes its own release from."""
    codename = os_release()["VERSION_CODENAME"]
    listed = run(
        ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages"]
    )
    for line in listed.splitlines():
        site, _, release = line.partition(" ")
        if release == codename:
            return site
    raise HarnessError(f"apt's sources name no archive of {codename}:\n{listed}")


def _download(folder: Path, suite: str, packages: Iterable[str]) -> list[Path]:
    """Fetch them with apt state of their own, as for a machine that has nothing installed; this
    machine's lists never see the suite."""
    state = folder / "apt"
    for name in ("lists/partial", "cache/archives/partial", "none"):
        (state / name).mkdir(parents=True)
    (state / "status").touch()
    (state / "sources.list").write_text(
        f"deb [signed-by={_KEYRING}] {debian_mirror()} {suite} main\n"
    )
    private = [
        f"-oDir::Etc::SourceList={state}/sources.list",
        f"-oDir::Etc::SourceParts={state}/none",
        f"-oDir::Etc::PreferencesParts={state}/none",
        f"-oDir::State::Lists={state}/lists",
        f"-oDir::State::status={state}/status",
        f"-oDir::Cache={state}/cache",
        "-oAPT::Sandbox::User=root",
        "-q",
        "-y",
    ]
    run(["apt-get", *private, "update"])
    run(["apt-get", *private, "--no-install-recommends", "--download-only", "install", *packages])
    return sorted((state / "cache/archives").glob("*.deb"))
