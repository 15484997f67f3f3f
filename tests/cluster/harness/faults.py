"""Slurm's commands as they are on a bad day: slow, failing, answering nonsense, or killed.

Wrappers first on PATH, before the real commands of the real cluster. Each takes its next fault from
a list, one word a line; when that is empty it is the real command.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

SBATCH: Mapping[str, str] = {
    "refused": "echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1",
    "timed-out-before": "echo 'sbatch: error: Socket timed out on send/recv' >&2; exit 1",
    "timed-out-after": "real > /dev/null; echo 'sbatch: error: Socket timed out' >&2; exit 1",
    "unreachable": "echo 'sbatch: error: Unable to contact slurm controller' >&2; exit 1",
    "silent-after": "real > /dev/null",
    "silent-before": "true",
    "page-after": "real > /dev/null; echo '<html>502 Bad Gateway</html>'",
    "binary-before": "head -c 300 /dev/urandom",
    "cut-off": "real | head -c 1",
    "banner": "echo '*** maintenance on day 7 ***'; real",
    "code-after": "real; exit 1",
    "killed-before": "kill -9 $$",
    "killed-after": "real > /dev/null; kill -9 $$",
    "hangs-before": "sleep 60",
    "hangs-after": "real > /dev/null; sleep 60",
    "slow": "sleep 0.2; real",
    "late": "late; echo 'sbatch: error: Socket timed out on send/recv' >&2; exit 1",
}
QUESTION: Mapping[str, str] = {
    "unreachable": "echo 'slurm_load_jobs error: Unable to contact controller' >&2; exit 1",
    "page": "echo '<html>502 Bad Gateway</html>'",
    "binary": "head -c 300 /dev/urandom",
    "columns": "real | cut -d '|' -f 1-3",
    "cut-off": "real | head -c 20",
    "other-columns": "echo 'JOBID|PARTITION|NAME|USER|ST|TIME'",
    "killed": "kill -9 $$",
    "hangs": "sleep 60",
    "slow": "sleep 0.2; real",
}
SCANCEL: Mapping[str, str] = {
    "refused": "echo 'scancel: error: Kill job error: Access/permission denied' >&2; exit 1",
    "unreachable": "echo 'scancel: error: Unable to contact slurm controller' >&2; exit 1",
    "killed-before": "kill -9 $$",
    "killed-after": "real; kill -9 $$",
    "hangs": "sleep 60",
    "slow": "sleep 0.2; real",
}
FAULTS: Mapping[str, Mapping[str, str]] = {
    "sbatch": SBATCH,
    "squeue": QUESTION,
    "sacct": QUESTION,
    "scontrol": QUESTION,
    "scancel": SCANCEL,
}

_WRAPPER = """\
#!/bin/bash
arguments=("$@")
real() {{ {real} "${{arguments[@]}}"; }}
late() {{ touch {folder}/late.$$; (setsid bash -c 'sleep 0.3; "$@"; rm "$0"' \
{folder}/late.$$ {real} "${{arguments[@]}}" > /dev/null 2>&1 &) }}
fault=
if [ -s {folder}/{name}.faults ]; then
    read -r fault < {folder}/{name}.faults
    sed -i 1d {folder}/{name}.faults
fi
case $fault in
{cases}
*) exec {real} "$@";;
esac
"""


class BadDay:
    """A folder to put first on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, faults in FAULTS.items():
            real = shutil.which(name)
            assert real is not None
            cases = "\n".join(f"{fault}) {body};;" for fault, body in faults.items())
            path = folder / name
            path.write_text(_WRAPPER.format(real=real, folder=folder, name=name, cases=cases))
            path.chmod(0o755)

    def plan(self, rng: Random, hangs: float) -> None:
        """Choose what goes wrong next.

        Args:
            hangs: how likely a fault that takes the whole time limit is kept.
        """
        for name, faults in FAULTS.items():
            chosen: list[str] = []
            for _ in range(rng.choice((0, 1, 1, 2, 3))):
                fault = rng.choice([*faults, "none", "none"])
                if not fault.startswith("hangs") or rng.random() < hangs:
                    chosen.append(fault)
            self._write(name, chosen)

    def over(self) -> None:
        """From now on all is well, and what was late has come."""
        for name in FAULTS:
            self._write(name, [])

    def is_late(self) -> bool:
        """Whether a job that nobody has heard of is still on its way."""
        return any(self.folder.glob("late.*"))

    def planned(self) -> dict[str, list[str]]:
        paths = {name: self.folder / f"{name}.faults" for name in FAULTS}
        return {name: path.read_text().split() for name, path in paths.items() if path.exists()}

    def _write(self, name: str, faults: Sequence[str]) -> None:
        text = "".join(f"{fault}\n" for fault in faults)
        (self.folder / f"{name}.faults").write_text(text)
