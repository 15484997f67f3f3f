"""What is installed beside this package, as a job of a search sees it."""

from __future__ import annotations

import sys

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.plan.search import Search


def see_installed(search: Search) -> None:
    """Have Python find what the search was submitted with, also a user's own installation.

    Raises:
        SiteError: this node does not have it.
    """
    sys.path += [path for path in search.python_path if path not in sys.path]
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise SiteError(
            f"{sys.executable} of this node has no Optuna ({error}): rtdetr-slurm must be "
            "installed where compute nodes see it too"
        ) from error
