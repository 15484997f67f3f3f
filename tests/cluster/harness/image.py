"""The container image the tests run in, built once per machine from the top-level Apptainerfile."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from .apptainer import apptainer, apptainer_run, environment
from .debs import debian_mirror
from .machine import REPO, HarnessError, cache_dir, locked, log, os_release, run, timed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

APPTAINERFILE = REPO / "Apptainerfile"
TENSORRT_DEF = REPO / "containers" / "tensorrt.def"
CONSTRAINTS = REPO / "constraints.txt"
BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates")
SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
HELPERS = "/mnt"
"""Where the build sees what pip needs from this machine; bound, so nothing of it stays inside."""


@dataclass(frozen=True)
class Image:
    """A built image: its file, and where in it the package lies (to bind the working tree over)."""

    path: Path
    package_dir: str


def image() -> Image:
    """The test image for the present Apptainerfile, constraints, dependencies and base.

    The package's own source is left out of the cache key on purpose: tests bind the working tree
    over the installed package, so a change of code costs no build.

    Raises:
        HarnessError: it cannot be built.
    """
    with locked("image"):
        path = cache_dir() / "images" / f"rtdetr-{image_key()}.sif"
        if not path.exists():
            build_image(path, APPTAINERFILE, BASE=str(base()))
        path.touch()  # the time of its last use
        return Image(path, _package_dir(path))


def tensorrt_image(training: Image) -> Image:
    """The TensorRT image on the test's training image, with TensorRT-RTX, which needs no GPU.

    Raises:
        HarnessError: it cannot be built.
    """
    key = hashlib.sha256(f"{training.path.stem}\n{TENSORRT_DEF.read_text()}".encode())
    with locked("tensorrt-image"):
        path = cache_dir() / "images" / f"tensorrt-{key.hexdigest()[:16]}.sif"
        if not path.exists():
            with unpacked(training.path) as folder:
                build_image(path, TENSORRT_DEF, BASE=f"{folder}/", TENSORRT="tensorrt-rtx")
        path.touch()
        return Image(path, training.package_dir)


@contextmanager
def unpacked(sif: Path) -> Iterator[Path]:
    """A folder with the files of an image: a base that is a SIF takes a capability to unpack that
    root may lack here."""
    listed = apptainer_run("sif", "list", sif)
    [offset] = re.findall(r"\|(\d+)-\d+\s*\|FS \(Squashfs", listed)
    with tempfile.TemporaryDirectory() as folder:
        mount = ["squashfuse", "-f", "-o", f"offset={offset}", str(sif), folder]
        with subprocess.Popen(mount) as process:
            while not any(Path(folder).iterdir()):
                if process.poll() is not None:
                    raise HarnessError(f"{sif} cannot be mounted by squashfuse")
                time.sleep(0.1)
            try:
                yield Path(folder)
            finally:
                run(["fusermount", "-u", folder])


def image_key() -> str:
    """Digest of everything that goes into the image, but for the package's source."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    parts = {
        "apptainerfile": APPTAINERFILE.read_text(),
        "constraints": CONSTRAINTS.read_text(),
        "dependencies": project["dependencies"],
        "engine": project["optional-dependencies"]["engine"],
        "scripts": project["scripts"],
        "version": re.findall(
            r'__version__ = "(.*)"', (REPO / "rtdetr_slurm/__init__.py").read_text()
        ),
        "base": base_key(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _package_dir(path: Path) -> str:
    """The installed package's folder inside the image; remembered beside the image."""
    note = path.with_suffix(".package-dir")
    if not note.exists():
        code = "import rtdetr_slurm; print(rtdetr_slurm.__path__[0])"
        # -I: the folder this runs in may be the working tree, and Apptainer mounts it.
        found = apptainer_run("exec", "--cleanenv", path, "python", "-I", "-c", code)
        note.write_text(found.strip())
    return note.read_text()


# --- the base ------------------------------------------------------------------------------
def base_key() -> str:
    """What the base depends on."""
    return "-".join((os_release()["VERSION_CODENAME"], *BASE_PACKAGES))


def base() -> Path:
    """Folder of a minimal Debian of this machine's release with Python: no registry needed."""
    digest = hashlib.sha256(base_key().encode()).hexdigest()[:8]
    folder = cache_dir() / f"base-{os_release()['VERSION_CODENAME']}-{digest}"
    with locked("base"):
        if not folder.exists():
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            with timed("debootstrap of the base"):
                include = f"--include={','.join(BASE_PACKAGES)}"
                codename = os_release()["VERSION_CODENAME"]
                mirror = debian_mirror()
                run(["debootstrap", "--variant=minbase", include, codename, partial, mirror])
            for waste in ("var/cache/apt/archives", "var/lib/apt/lists"):
                shutil.rmtree(partial / waste)
            partial.rename(folder)
    return folder


# --- the build -----------------------------------------------------------------------------
def build_image(path: Path, definition: Path, **arguments: str) -> None:
    """Build an image from a folder as base, quickly packed.

    Raises:
        HarnessError: apptainer fails.
    """
    with timed(f"building {path.name}"):
        _build(path, definition, {"BOOTSTRAP": "localimage", **arguments})


def _build(path: Path, definition: Path, arguments: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_old_images(path.parent)
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    helpers = cache_dir() / "pip"
    binds = pip_helpers(helpers)
    build_log = path.with_suffix(".log")
    command = [
        str(apptainer()),
        "build",
        *(w for one in arguments.items() for w in ("--build-arg", "=".join(one))),
        *("--build-arg", f"PIP_CONFIG={HELPERS}/pip.conf"),
        *("--mksquashfs-args", "-comp zstd -Xcompression-level 1"),
        *(word for bind in binds for word in ("--bind", bind)),
        str(partial),
        str(definition),
    ]
    log(f"log of the build: {build_log}")
    with build_log.open("w") as out:
        done = subprocess.run(
            command,
            cwd=REPO,
            env={**os.environ, **environment()},
            stdout=out,
            stderr=out,
            check=False,
        )
    if done.returncode != 0:
        partial.unlink(missing_ok=True)
        tail = "\n".join(build_log.read_text(errors="replace").splitlines()[-25:])
        raise HarnessError(f"apptainer build ended with {done.returncode}:\n{tail}")
    partial.rename(path)


def _drop_old_images(folder: Path) -> None:
    """Keep the image of each kind used last (and the new one to come): each takes gigabytes."""
    for kind in ("rtdetr", "tensorrt"):
        images = sorted(folder.glob(f"{kind}-*.sif"), key=lambda path: path.stat().st_mtime)
        for old in images[:-1]:
            for path in folder.glob(f"{old.stem}.*"):
                path.unlink()


# --- pip's configuration -------------------------------------------------------------------
def pip_helpers(folder: Path) -> list[str]:
    """Carry this machine's pip set-up (mirrors, certificates, local folders) into the build.

    Writes `folder`/pip.conf, in which every local path is replaced by a place below HELPERS.

    Returns:
        The binds: `folder` itself, and each local file or folder that the configuration names.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    binds = [f"{folder}:{HELPERS}"]

    def carried(local: Path) -> str:
        name = f"{len(binds)}-{local.name}"
        if local.is_dir():
            (folder / name).mkdir()
        else:
            (folder / name).touch()
        binds.append(f"{local}:{HELPERS}/{name}")
        return f"{HELPERS}/{name}"

    options = {name: _localised(value, carried) for name, value in _pip_options().items()}
    cache = Path(run([sys.executable, "-m", "pip", "cache", "dir"]).strip())
    cache.mkdir(parents=True, exist_ok=True)
    options["cache-dir"] = carried(cache)
    config = configparser.RawConfigParser()
    config["global"] = options
    with (folder / "pip.conf").open("w") as handle:
        config.write(handle)
    return binds


def _pip_options() -> dict[str, str]:
    """What `pip config list` says of pip as a whole; its environment variables win."""
    listed = run([sys.executable, "-m", "pip", "config", "list"])
    found = re.findall(r"^(global|:env:)\.([\w-]+)='(.*)'$", listed, re.MULTILINE)
    ranked = sorted(found, key=lambda option: option[0] == ":env:")
    options = {name: value for _, name, value in ranked if name != "cache-dir"}
    # The base's pip knows only the public authorities; this machine may trust one of its own.
    if SYSTEM_CERTIFICATES.exists():
        options.setdefault("cert", str(SYSTEM_CERTIFICATES))
    return options


def _localised(value: str, carried: Callable[[Path], str]) -> str:
    """`value` with each word that is a local path or a file:// address carried into the build.

    Of an index at file://…/simple its parent folder goes along: its links lead to files beside it.
    """
    words = []
    for word in value.split():
        local = Path(url2pathname(urlsplit(word).path) if word.startswith("file://") else word)
        if word.startswith("file://") and local.exists():
            words.append(f"file://{carried(local.parent)}/{local.name}")
        elif local.is_absolute() and local.exists():
            words.append(carried(local))
        else:
            words.append(word)
    return " ".join(words)
