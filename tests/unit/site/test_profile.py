"""What a role gets, and that the example and the documentation fit the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from site_support import Machine

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.site.discover import local_site
from rtdetr_slurm.site.profile import ROLES, Gpu, Limits, Role, Roles, Site

REPOSITORY = Path(__file__).parents[3]


def site(**values: Any) -> Site:
    return Site.model_validate({"image": "/all.sif"} | values)


def test_every_action_runs_in_a_role_of_the_profile() -> None:
    assert set(ROLES) == set(Roles.model_fields)
    assert {action.role for action in ACTIONS.values()} <= set(ROLES)


def test_a_role_has_the_profiles_defaults_but_for_what_it_names() -> None:
    at = site(
        partition="gpu",
        account="lab",
        time="1:00:00",
        mem_gb=100,
        roles={"tensorrt": {"partition": "inference", "image": "/trt.sif", "time": 10}},
    )
    train, tensorrt = at.for_role("train"), at.for_role("tensorrt")
    assert (train.partition, train.account, train.time, train.mem_gb) == ("gpu", "lab", 60, 100)
    assert (tensorrt.partition, tensorrt.account, tensorrt.time) == ("inference", "lab", 10)
    assert train.image is not None
    assert tensorrt.image is not None
    assert (train.image.path, tensorrt.image.path) == ("/all.sif", "/trt.sif")


def test_null_in_a_role_is_an_answer_too() -> None:
    at = site(account="lab", qos="high", roles={"cpu": {"account": None}})
    role = at.for_role("cpu")
    assert (role.account, role.qos) == (None, "high")


def test_gpu_is_taken_key_by_key() -> None:
    at = site(
        gpu={"request": "gres", "type": "a100"},
        roles={"tensorrt": {"gpu": {"type": "l4"}}, "cpu": {"gpu": {"request": "none"}}},
    )
    assert at.for_role("train").gpu == Gpu(request="gres", type="a100")
    assert at.for_role("tensorrt").gpu == Gpu(request="gres", type="l4")
    assert at.for_role("cpu").gpu == Gpu(request="none", type="a100")


@pytest.mark.parametrize(
    ("top", "own", "cpus"),
    [
        ({}, {}, None),
        ({"cpus_per_gpu": 4}, {}, 12),
        ({"cpus_per_task": 8, "cpus_per_gpu": 4}, {}, 8),
        ({"cpus_per_task": 8}, {"cpus_per_gpu": 5}, 15),
        ({"cpus_per_gpu": 4}, {"cpus_per_task": 2}, 2),
        ({"cpus_per_task": 8, "cpus_per_gpu": 4}, {"cpus_per_task": None}, 12),
    ],
)
def test_cpus_of_a_node_with_three_gpus(
    top: dict[str, int], own: dict[str, int], cpus: int | None
) -> None:
    assert site(**top, roles={"train": own}).for_role("train").cpus_per_node(3) == cpus


def test_image_or_python_as_the_container_says() -> None:
    at = site(python="/venv/bin/python", roles={"cpu": {"container": "none"}})
    train, cpu = at.for_role("train"), at.for_role("cpu")
    assert (train.container, train.python) == ("apptainer", None)
    assert train.image is not None
    assert (cpu.container, cpu.image, cpu.python) == ("none", None, "/venv/bin/python")


def test_a_container_needs_an_image_of_the_role_that_is_used() -> None:
    at = site(image=None, name="here", roles={"train": {"image": "/t.sif"}})
    at.for_role("train")
    with pytest.raises(SiteError, match=r"'here' names no image .*roles\.tensorrt\.image") as error:
        at.for_role("tensorrt")
    assert error.value.exit_code == 3


def test_this_machine_has_no_container() -> None:
    for at in (local_site(), site(scheduler="local")):
        assert at.for_role("train").container == "none"
        assert at.for_role("train").image is None


def test_the_example_profile_is_valid(tmp_path: Path) -> None:
    found = Machine(tmp_path).site(REPOSITORY / "specs" / "site-gpu-cluster.yaml")
    train, cpu, tensorrt = map(found.for_role, ROLES)
    assert (train.partition, cpu.partition, tensorrt.partition) == ("gpu", "batch", "inference")
    assert [role.cpus_per_node(2) for role in (train, cpu, tensorrt)] == [24, 8, 24]
    assert (train.time, tensorrt.time) == (24 * 60, 4 * 60)
    assert tensorrt.gpu == Gpu(request="gpus-per-node", type="l4")
    assert train.gpu.memory_gb == 40, "and not of the L4s above"
    assert found.env == {"HTTPS_PROXY": None, "NO_PROXY": None, "NCCL_DEBUG": "WARN"}
    assert found.limits.max_time == 3 * 24 * 60


def test_every_key_is_described_and_documented() -> None:
    documented = (REPOSITORY / "docs" / "site.md").read_text()
    every, top_only, *_ = re.findall(r"(?:^\|.*\n)+", documented, re.MULTILINE)
    of_roles = set(Role.model_fields)
    assert keys_of(every) == of_roles
    assert keys_of(top_only) == set(Site.model_fields) - of_roles
    for name in (*ROLES, *Gpu.model_fields, *Limits.model_fields):
        assert f"`{name}`" in documented, name


def keys_of(table: str) -> set[str]:
    """The names in backticks in the first column of a Markdown table."""
    first = [line.split("|")[1] for line in table.splitlines()]
    return set(re.findall(r"`(\w+)`", " ".join(first)))


def test_taos_image_is_a_roles_choice_and_needs_a_container() -> None:
    site = Site.model_validate({"image": "/i.sif", "roles": {"tensorrt": {"engine": "tao"}}})
    assert (site.engine_of("train"), site.engine_of("gen_trt_engine")) == ("rtdetr", "tao")
    bare = site.model_copy(update={"container": "none", "image": None})
    bare.for_role("train")
    with pytest.raises(SiteError, match="engine: tao for role 'tensorrt', and no container"):
        bare.for_role("tensorrt")
