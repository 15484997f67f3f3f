"""The environment in which Slurm's commands are called."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SCHEDULER_VARIABLE = re.compile(
    r"(SLURM|SLURMD|SBATCH|SRUN|SALLOC|SQUEUE|SACCT|SCANCEL|PMI|PMIX)\d?_.*"
)
_KEPT = frozenset({"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT"})
"""What finds the cluster, and what it knows the user by where it has JWT authentication."""


def submission_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without what an enclosing job or a shell start-up file left there for Slurm.

    sbatch and its relatives read such variables as options: a job submitted from inside another
    one would inherit its memory, CPU binding and export settings. What finds the cluster stays.
    """
    return {
        name: value
        for name, value in environ.items()
        if name in _KEPT or not _SCHEDULER_VARIABLE.fullmatch(name)
    }


def job_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The same for commands inside a job, which are about itself, on its own cluster."""
    found = submission_environment(environ)
    found.pop("SLURM_CLUSTERS", None)
    return found
