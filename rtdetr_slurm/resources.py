"""Files that come with the package: schemas/, specs/ and sbatch/ of the repository.

Standard library only.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def schemas_dir() -> Path:
    """Folder of `<action>.schema.json` and `manifest.json`."""
    return _folder("schemas")


def specs_dir() -> Path:
    """Folder of `<action>.yaml`, of quickstart.yaml, and of the example site profiles."""
    return _folder("specs")


def sbatch_dir() -> Path:
    """Folder of the sbatch templates and what they share."""
    return _folder("sbatch")


def _folder(name: str) -> Path:
    installed = _PACKAGE / name
    return installed if installed.is_dir() else _PACKAGE.parent / name
