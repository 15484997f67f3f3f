"""How Slurm's programs are called, where the words of the call decide."""

from __future__ import annotations

from pathlib import Path

from slurm_support import FakeSlurm

from rtdetr_slurm.slurm.commands import Slurm


def test_whether_nodes_can_be_left_out_is_asked_without_the_scripts_dependency(
    tmp_path: Path,
) -> None:
    """The job that it waited for may be forgotten by now."""
    fake = FakeSlurm(tmp_path)
    slurm = Slurm({"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert slurm.refusal_without(tmp_path / "job.sh", ["n1", "n2"]) is None
    [call] = fake.calls("sbatch")
    assert call == f"--test-only --exclude=n1,n2 --dependency= {tmp_path}/job.sh"
