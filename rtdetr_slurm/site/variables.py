"""Environment variables that a job does not get although they are set, or that it should get
although they are not, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from rtdetr_slurm.contract import Env
from rtdetr_slurm.site.profile import ROLES, Site
from rtdetr_slurm.slurm.environment import is_secret

KEYS: Mapping[str, str] = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_WCKEY": "wckey",
    "SBATCH_TIMELIMIT": "time",
    "SBATCH_GRES": "gpu",
    "SBATCH_GPUS": "gpu",
    "SBATCH_GPUS_PER_NODE": "gpu",
    "SBATCH_CPUS_PER_GPU": "cpus_per_gpu",
    "SBATCH_MEM_PER_NODE": "mem_gb",
    "SBATCH_REQUEUE": "requeue",
    "SBATCH_NO_REQUEUE": "requeue",
    "SBATCH_SIGNAL": "signal_lead_s",
    "SBATCH_EXPORT": "env",
}
"""Variable to the key of the profile that does the same."""

_OTHERWISE: Mapping[str, str] = {
    "SBATCH_JOB_NAME": "job.name in the spec, and --name, do the same",
    "SBATCH_CLUSTERS": "SLURM_CLUSTERS in the environment does the same",
}


def notes_on_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """A line for each option of sbatch that the environment has and no job gets."""
    for name in sorted(environ):
        if name.startswith("SBATCH_") and environ[name]:
            key = KEYS.get(name)
            instead = _OTHERWISE.get(name, "no key of the site profile does the same")
            if key is not None:
                instead = f"{key} in the site profile does the same"
            # It may set variables, secrets among them, and notes are kept.
            value = "" if name == "SBATCH_EXPORT" else f"={environ[name]!r}"
            yield f"{name}{value} in the environment is not passed on; {instead}"


def notes_on_unset(names: Iterable[str]) -> Iterator[str]:
    """A line for each secret of the profile that is not set."""
    for name in names:
        yield f"{name}, one of the profile's secrets, is not set here: jobs do without it"


def notes_on_secrets(site: Site, environ: Mapping[str, str]) -> Iterator[str]:
    """A line for each secret of the profile that is not set, and one on those that only a job
    outside a container would have had from the shell."""
    yield from notes_on_unset(name for name in site.secrets if not environ.get(name))
    containers = {site.container, *(getattr(site.roles, role).container for role in ROLES)}
    if "none" in containers:
        taken = {*site.secrets, Env.ENCRYPTION_KEY}
        left_out = sorted(n for n in environ if is_secret(n) and n not in taken)
        if left_out:
            yield (
                f"{', '.join(left_out)} in the environment: not passed on to jobs, for Slurm would "
                "store it; a job that needs one has it named under secrets in the site profile"
            )
