"""Data as benchmarks take them: a folder per split, each with `images` (or `images.tar.gz`) and
`annotations.json`."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any


def opened(data: Path, work: Path) -> Path:
    """The folder with images that are files."""
    for archive in data.glob("*/images.tar.gz"):
        folder = work / "data" / archive.parent.name
        with tarfile.open(archive) as images:
            images.extractall(folder, filter="data")
        found = next(path for path in folder.rglob("*.jp*g")).parent
        if found != folder / "images":
            found.rename(folder / "images")
        (folder / "annotations.json").write_bytes(
            (archive.parent / "annotations.json").read_bytes()
        )
    return work / "data" if (work / "data").is_dir() else data


def source(split: Path) -> dict[str, str]:
    return {
        "image_dir": str(split / "images"),
        "json_file": str(split / "annotations.json"),
    }


def train_and_val(data: Path) -> dict[str, Any]:
    """What a spec's `dataset` says of `train` and `val` below a folder."""
    categories = json.loads((data / "train" / "annotations.json").read_text())["categories"]
    return {
        "train_data_sources": [source(data / "train")],
        "val_data_sources": source(data / "val"),
        "num_classes": max(category["id"] for category in categories) + 1,
    }
