"""What an action has left in a folder, as something that compares."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

WITHOUT_CONTENT = ("experiment.yaml", "claim.json", "progress.json", "report.html")
"""Files that repeat the spec, or tell of times."""
VOLATILE = re.compile(r"time|date|eta|seconds|spec|version|sha256|bytes|path|claim|start|latency")
"""Keys of records that repeat the spec, or tell of times."""


def left_in(folder: Path) -> Iterator[Any]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if "tfevents" in name or path.name == "spec.yaml":
            continue
        yield name, None if path.name in WITHOUT_CONTENT else content_of(path, folder)


def content_of(path: Path, folder: Path) -> Any:
    data = path.read_bytes()
    if path.suffix == ".pth" and zipfile.is_zipfile(path):
        return plain_content(torch.load(path, weights_only=True))
    if path.suffix == ".json":
        lines = data.decode().replace(str(folder), "").splitlines()
        whole = path.name != "status.json"
        return plain_content([json.loads(one) for one in (["".join(lines)] if whole else lines)])
    return hashlib.sha256(data).hexdigest()


def plain_content(value: Any) -> Any:
    """Something that compares: tensors as digests, without what is volatile."""
    if isinstance(value, torch.Tensor):
        content = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return str(value.shape), hashlib.sha256(content).hexdigest()
    if isinstance(value, Mapping):
        items = ((key, plain_content(each)) for key, each in value.items())
        return {str(key): each for key, each in items if not VOLATILE.search(str(key))}
    if isinstance(value, list | tuple):
        return [plain_content(each) for each in value]
    return value
