"""Which site profiles are found, and what is the site where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from site_support import Machine

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.resources import specs_dir


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_slurm_and_profile_this_machine_is_the_site(machine: Machine) -> None:
    found = machine.find()
    assert found.site.scheduler == "local"
    assert found.site.accelerator is None
    assert found.site.gpu.request == "none"
    [note] = found.notes
    assert "no sbatch on PATH" in note


def test_slurm_without_a_profile_is_an_error_that_says_what_to_write(machine: Machine) -> None:
    machine.install_slurm()
    with pytest.raises(SiteError) as error:
        machine.find()
    message = str(error.value)
    assert error.value.exit_code == 3
    assert str(machine.root / "home/.config/rtdetr-slurm/site.yaml") in message
    assert str(specs_dir() / "site-gpu-cluster.yaml") in message
    assert "docs/site.md" in message


def test_local_can_be_asked_for_where_there_is_slurm(machine: Machine) -> None:
    machine.install_slurm()
    machine.write_user("name: cluster\n")
    assert machine.find("local").site.scheduler == "local"
    machine.env["RTDETR_SLURM_SITE"] = "local"
    assert machine.find().site.scheduler == "local"


def test_a_named_profile_must_exist(machine: Machine) -> None:
    with pytest.raises(SiteError, match="--site: there is no file"):
        machine.find("/nowhere/site.yaml")
    machine.env["RTDETR_SLURM_SITE"] = "/nowhere/site.yaml"
    with pytest.raises(SiteError, match=r"\$RTDETR_SLURM_SITE: there is no file"):
        machine.find()
