"""Which site profiles are found, and what is the site where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from site_support import Machine

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.resources import specs_dir
from rtdetr_slurm.site.profile import Site
from rtdetr_slurm.site.variables import KEYS
from rtdetr_slurm.slurm.environment import submission_environment


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
    with pytest.raises(SiteError, match=r"--site: /nowhere/site\.yaml does not exist"):
        machine.find("/nowhere/site.yaml")
    with pytest.raises(SiteError, match="--site: / is no file"):
        machine.find("/")
    machine.env["RTDETR_SLURM_SITE"] = "/nowhere/site.yaml"
    with pytest.raises(SiteError, match=r"\$RTDETR_SLURM_SITE: /nowhere/site\.yaml does not exist"):
        machine.find()


def test_sbatchs_own_variables_are_said_with_what_does_the_same(machine: Machine) -> None:
    machine.write_user("image: /i.sif\n")
    assert machine.find().notes == ()
    machine.env |= {
        "SBATCH_ACCOUNT": "lab",
        "SBATCH_RESERVATION": "r",
        "SBATCH_JOB_NAME": "j",
        "SBATCH_QOS": "",
        "SBATCH_EXPORT": "ALL,X_TOKEN=hunter2",
        "SLURM_JOB_ID": "7",
        "SLURM_CONF": "/etc/slurm.conf",
    }
    account, export, name, reservation = machine.find().notes
    assert export.startswith("SBATCH_EXPORT in the environment is not passed on; env")
    assert account == (
        "SBATCH_ACCOUNT='lab' in the environment is not passed on; account in the site profile "
        "does the same"
    )
    assert name.endswith("job.name in the spec, and --name, do the same")
    assert reservation.endswith("no key of the site profile does the same")
    machine.write_user("scheduler: local\n")
    assert machine.find().notes == ()
    assert set(KEYS.values()) <= set(Site.model_fields)
    assert submission_environment(dict.fromkeys(KEYS, "x")) == {}


def test_secrets_that_are_not_set_and_those_that_only_the_shell_has(machine: Machine) -> None:
    machine.env |= {"HF_TOKEN": "x", "B_TOKEN": "y"}
    machine.write_user("image: /x.sif\nsecrets: [HF_TOKEN, A_LOGIN]\n")
    assert machine.find().notes == (
        "A_LOGIN, one of the profile's secrets, is not set here: jobs do without it",
    )
    machine.write_user("container: none\nsecrets: [HF_TOKEN]\n")
    [note] = machine.find().notes
    assert note.startswith("B_TOKEN in the environment: not passed on to jobs")
    machine.write_user("scheduler: local\nsecrets: [HF_TOKEN, A_LOGIN]\n")
    assert machine.find().notes == ()
