"""Apptainer from Debian's unstable suite, unpacked into a prefix of its own.

No stable Debian carries Apptainer, and the unstable one needs a newer libc than a stable system
has. So its package and the libraries it needs are unpacked beside each other, and the programs
are told (patchelf) to use that loader and those libraries; the system's own stay untouched.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from .machine import HarnessError, cache_dir, locked, os_release, run, timed

MINIMUM = (1, 4)
SUITE = "sid"
DEBS = ("apptainer", "libc6", "libseccomp2", "libsqlite3-0", "libgcc-s1", "libsubid6")
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
    partial = prefix.with_name(f"{prefix.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    debs = partial / "debs"
    debs.mkdir(parents=True)
    for deb in _download(debs):
        run(["dpkg", "-x", deb, partial])
    shutil.rmtree(debs)
    for name in CONFIG_DIRS:
        shutil.copytree(partial / "etc/apptainer", partial / name)
    for name in SESSION_DIRS:
        (partial / name).mkdir(parents=True)
    # The loader's path is written into the programs, so they are patched for the final place.
    shutil.rmtree(prefix, ignore_errors=True)
    partial.rename(prefix)
    try:
        _relocate(prefix)
        _version(prefix / "usr/bin/apptainer")
    except HarnessError:
        shutil.rmtree(prefix)
        raise


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


def _download(folder: Path) -> list[Path]:
    """Fetch the packages with apt state of their own; the machine's lists never see this suite."""
    state = folder / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True)
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (state / "sources.list").write_text(
        f"deb [signed-by={keyring}] {debian_mirror()} {SUITE} main\n"
    )
    private = [
        f"-oDir::Etc::SourceList={state}/sources.list",
        "-oDir::Etc::SourceParts=-",
        f"-oDir::State::Lists={state}/lists",
        f"-oDir::Cache={state}/cache",
        "-oAPT::Sandbox::User=root",
    ]
    run(["apt-get", "-q", *private, "update"])
    run(["apt-get", "-q", *private, "download", *DEBS], cwd=folder)
    return sorted(folder.glob("*.deb"))


def _relocate(prefix: Path) -> None:
    loaders = [path for path in prefix.rglob("ld-linux*.so*") if path.is_file()]
    if len(loaders) < 1:
        raise HarnessError(f"no dynamic loader in {prefix}: libc6 was not unpacked")
    loader = loaders[0]
    library_dirs = sorted({path.parent for path in prefix.rglob("*.so*") if path.is_file()})
    rpath = ":".join(str(path) for path in library_dirs)
    programs = [prefix / "usr/bin/apptainer", *prefix.glob("usr/lib/**/apptainer/bin/starter*")]
    for program in programs:
        run(["patchelf", "--set-interpreter", loader, program])
    names = ("libseccomp", "libsqlite3", "libgcc_s", "libsubid")
    libraries = [
        path
        for path in prefix.rglob("*.so*")
        if path.name.startswith(names) and not path.is_symlink()
    ]
    for binary in (*programs, *libraries):
        run(["patchelf", "--force-rpath", "--set-rpath", rpath, binary])


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
