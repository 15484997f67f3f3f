"""What is installed beside this package, as a job outside a container sees it: an isolated Python
does not look where a user's own installation is. Standard library only."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from rtdetr_slurm.errors import SiteError


def python_path(library: str) -> tuple[str, ...]:
    """Where this Python finds a library and what that needs: the folders of installed packages."""
    found = find_spec(library)
    assert found is not None, f"{library} is a dependency"
    assert found.origin is not None
    first = str(Path(found.origin).parents[1])
    installed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    return tuple(dict.fromkeys([first, *installed]))


def see_installed(paths: Sequence[str], library: str) -> None:
    """Have Python find a library where it was at submission.

    Raises:
        SiteError: this node does not have it.
    """
    sys.path += [path for path in paths if path not in sys.path]
    try:
        import_module(library)
    except ImportError as error:
        raise SiteError(
            f"{sys.executable} of this node has no {library} ({error}): rtdetr-slurm must be "
            "installed where compute nodes see it too"
        ) from error


@contextmanager
def without(library: str) -> Iterator[None]:
    """Have what is imported meanwhile find that a library is not installed, unless it is there."""
    if library in sys.modules:
        yield
        return
    sys.modules[library] = None  # type: ignore[assignment]  # as Python's own documentation has it
    try:
        yield
    finally:
        del sys.modules[library]
