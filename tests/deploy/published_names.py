"""Which names TensorRT's published bindings have, for `tests/unit/deploy/test_tensorrt_names.py`.

NVIDIA's data-centre TensorRT cannot be loaded without its libraries and a driver, but the wheel of
its Python bindings is on PyPI, and every name that it defines is a word in its shared object.

    python -m tests.deploy.published_names

downloads the wheels, 1 MB each, and rewrites the file.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import rtdetr_slurm

ADAPTER = Path(rtdetr_slurm.__file__).parent / "deploy" / "tensorrt.py"
FIXTURE = Path(__file__).parents[1] / "unit" / "deploy" / "tensorrt_names.json"
VERSIONS = ("10.0.1", "10.16.1.11", "11.0.0.114", "11.4.0.106")
"""The first and the last of each major version when this was written."""
REMOVED_IN_11 = "EXPLICIT_BATCH"
"""A control: TensorRT 10 has this name, and TensorRT 11 has not."""


def attributes() -> set[str]:
    """Every name after a dot in the adapter, and the control."""
    tree = ast.parse(ADAPTER.read_text())
    found = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {name for name in found if not name.startswith("_")} | {REMOVED_IN_11}


def published(version: str) -> list[str]:
    """Those of them that the bindings of a version have."""
    with tempfile.TemporaryDirectory() as folder:
        package = f"tensorrt_cu12_bindings=={version}"
        download = ("pip", "download", "--quiet", "--no-deps", "--dest", folder, package)
        subprocess.run([sys.executable, "-m", *download], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (library,) = (name for name in archive.namelist() if name.endswith(".so"))
            words = set(re.findall(rb"[A-Za-z_][A-Za-z0-9_]*", archive.read(library)))
    return sorted(name for name in attributes() if name.encode() in words)


if __name__ == "__main__":
    names = {version: published(version) for version in VERSIONS}
    FIXTURE.write_text(json.dumps(names, indent=1) + "\n")
