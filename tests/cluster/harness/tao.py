"""The image of tests/cluster/tao, a stand-in for TAO's, built once per state of its files."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import yaml

from .apptainer import apptainer_run
from .image import base, base_key
from .machine import REPO, cache_dir, locked, timed

SOURCE = REPO / "tests" / "cluster" / "tao"


def tao_image() -> Path:
    """Path of the image."""
    files = sorted(SOURCE.iterdir())
    parts = [base_key().encode(), yaml.__version__.encode(), *(p.read_bytes() for p in files)]
    path = cache_dir() / "images" / f"tao-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:16]}.sif"
    with locked("tao-image"):
        if not path.exists():
            with timed(f"building {path.name}"):
                _build(path)
    return path


def _build(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob("tao-*.sif"):
        old.unlink()
    folder = path.with_suffix(".build")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SOURCE, folder)
    # Plain Python is enough of it.
    shutil.copytree(Path(yaml.__file__).parent, folder / "yaml", ignore=_compiled)
    partial = path.with_suffix(".partial")
    arguments = [f"--build-arg=BASE={base()}", f"--build-arg=FILES={folder}"]
    quick = "--mksquashfs-args=-comp zstd -Xcompression-level 1"
    apptainer_run("build", "--force", *arguments, quick, partial, folder / "stand_in.def")
    partial.rename(path)
    shutil.rmtree(folder)


def _compiled(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".py")]
