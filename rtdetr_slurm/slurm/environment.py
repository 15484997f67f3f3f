"""The environment in which Slurm's commands are called, and what sbatch hands on to the job of it.

sbatch reads options from its environment, and stores all of it: with the job, and on clusters that
keep it (AccountingStoreFlags=job_env) for years.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from rtdetr_slurm.contract import Env

_SCHEDULER_VARIABLE = re.compile(
    r"(SLURM|SLURMD|SBATCH|SRUN|SALLOC|SQUEUE|SACCT|SCANCEL|PMI|PMIX)\d?_.*"
)
_KEPT = frozenset({"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT"})
"""What finds the cluster, and what it knows the user by where it has JWT authentication."""

_LAUNCH_VARIABLE = re.compile(
    r"(SUBMITIT|TORCHELASTIC)_.*|(GROUP|LOCAL|ROLE)_(RANK|WORLD_SIZE)|GPU_DEVICE_ORDINAL"
)
_LAUNCH_VARIABLES = frozenset(value for name, value in vars(Env).items() if name.isupper())
"""What a job or a torchrun around `submit` tells its own processes, of its own nodes and GPUs."""

_JOBS_OWN = frozenset({"TMPDIR"})
"""Many clusters give each job a folder, on its node and until its end."""

_SECRET = re.compile(
    r".*(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE"
    r"|(API|ACCESS|SECRET|PRIVATE|ENCRYPTION|ACCOUNT)_?KEY)",
    re.IGNORECASE,
)
_LITERAL = re.compile(r"""\b([A-Za-z_][A-Za-z0-9_]*)=(?!["']?[$`]|""|'')["']?[^\s;]""")
"""In a line of shell, a variable that is set to a text which stands there."""


def submission_environment(
    environ: Mapping[str, str], secrets: Collection[str] = ()
) -> dict[str, str]:
    """`environ` without what is not for Slurm, nor for the jobs that it starts.

    Left out is what an enclosing job or a shell start-up file left there for Slurm, which a job
    submitted from inside another one would inherit (its memory, CPU binding and export settings);
    what that job tells its own processes; and secrets. What finds the cluster stays.

    Args:
        secrets: names of further variables that Slurm must not store.
    """
    inside = "SLURM_JOB_ID" in environ
    named = {*secrets, *_LAUNCH_VARIABLES, *(_JOBS_OWN if inside else ())}
    return {
        name: value
        for name, value in environ.items()
        if name in _KEPT
        or not (
            name in named
            or is_secret(name)
            or _SCHEDULER_VARIABLE.fullmatch(name)
            or _LAUNCH_VARIABLE.fullmatch(name)
        )
    }


def job_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The same for commands inside a job, which are about itself, on its own cluster."""
    found = submission_environment(environ)
    found.pop("SLURM_CLUSTERS", None)
    return found


def is_secret(name: str) -> bool:
    """Whether a variable's name says that its value is a secret, such as WANDB_API_KEY."""
    return _SECRET.fullmatch(name) is not None


def literal_secrets(line: str) -> Iterator[str]:
    """Names of secrets that a line of shell sets to a text which stands there."""
    return (name for name in _LITERAL.findall(line) if is_secret(name))
