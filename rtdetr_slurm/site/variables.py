"""sbatch's own environment variables, which are not passed on, and what says the same instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
            yield f"{name}={environ[name]!r} in the environment is not passed on; {instead}"
