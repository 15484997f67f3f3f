"""The code that runs a run's jobs outside the container, frozen with the run in one archive.

A job may start days after it was submitted, and more than once: an upgrade of the package between
must not change the code in its middle. The archive needs Python alone, so it runs isolated from
everything that is installed, and from what module lines and shells put into PYTHONPATH.
"""

from __future__ import annotations

import ast
import io
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import rtdetr_slurm
from rtdetr_slurm.contract import CONTROLLER_ZIP, JOBS_DIR
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.runs.run import Run

_PACKAGE = Path(rtdetr_slurm.__file__).parent
_ENTRY = "rtdetr_slurm.controller"
_MAIN = f"import sys\n\nfrom {_ENTRY} import main\n\nsys.exit(main())\n"


def write_controller(run: Run) -> None:
    """Freeze the launch code into the run folder.

    Raises:
        SiteError: it cannot be written.
    """
    path = run.path / JOBS_DIR / CONTROLLER_ZIP
    try:
        # It is executed later: nobody else may write it, whatever the umask.
        write_atomic(path, controller_archive(), mode=0o600)
    except OSError as error:
        raise SiteError(f"cannot write {path}: {error.strerror}") from error


@cache
def controller_archive() -> bytes:
    """A zip that Python runs as it is: the entry point of launch and all that it imports."""
    buffer = io.BytesIO()
    # Installed files may be dated 1970, which a zip cannot say.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        archive.writestr("__main__.py", _MAIN)
        for path in sorted(_needed()):
            archive.write(path, path.relative_to(_PACKAGE.parent))
    return buffer.getvalue()


def _needed() -> set[Path]:
    """The files of the entry point and of what it imports, directly or not."""
    found: set[Path] = set()
    waiting = [_ENTRY]
    while waiting:
        for path in _files(waiting.pop()):
            if path not in found:
                found.add(path)
                # The package itself offers the login side's API, and loads it when it is used.
                waiting += [] if path == _PACKAGE / "__init__.py" else _imports(path)
    return found


def _files(name: str) -> Iterator[Path]:
    """The files that importing `name` reads: its packages and itself; a function's are its
    module's, and what is not of this package has none."""
    place = _PACKAGE.parent
    for part in name.split("."):
        place /= part
        for path in (place / "__init__.py", place.with_suffix(".py")):
            if place.is_relative_to(_PACKAGE) and path.is_file():
                yield path


def _imports(path: Path) -> Iterator[str]:
    """Full names of what a module imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
