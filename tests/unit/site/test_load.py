"""How profile files become one site, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from site_support import Machine

from rtdetr_slurm.errors import SiteError


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# --- merging -------------------------------------------------------------------------------
def test_files_merge_per_key_and_the_nearest_wins(machine: Machine) -> None:
    option = machine.write("a.yaml", "account: a\nroles: {train: {partition: pa}}\n")
    machine.env["RTDETR_SLURM_SITE"] = str(
        machine.write(
            "b.yaml",
            "account: b\nqos: b\nroles: {train: {partition: pb, time: 5}, cpu: {partition: pb}}\n",
        )
    )
    machine.write_user("qos: c\nconstraint: c\nroles: {tensorrt: {partition: pc}, cpu: null}\n")
    machine.write_admin("account: d\ntime: 60\nname: d\nroles: {tensorrt: {gpu: {type: l4}}}\n")
    found = machine.find(option)
    site = found.site
    assert (site.account, site.qos, site.constraint, site.time) == ("a", "b", "c", 60)
    assert site.name == "d"
    roles = site.roles
    assert (roles.train.partition, roles.train.time) == ("pa", 5)
    assert (roles.cpu.partition, roles.tensorrt.partition) == ("pb", "pc")
    assert roles.tensorrt.gpu.type == "l4"
    assert [path.name for path in found.sources] == ["a.yaml", "b.yaml", "site.yaml", "site.yaml"]


def test_null_takes_back_what_a_farther_file_says(machine: Machine) -> None:
    machine.write_user("account: null\nroles: {train: {qos: null}}\nenv: null\n")
    machine.write_admin("account: shared\nqos: low\nroles: {train: {qos: high}}\nenv: [A]\n")
    site = machine.site()
    assert site.account is None
    assert site.qos == "low"
    assert site.roles.train.qos is None
    assert site.env == {}


def test_limits_of_the_administrator_can_be_tightened_and_not_widened(machine: Machine) -> None:
    machine.write_user(
        "limits: {max_nodes: 64, max_time: 30, partitions: [gpu, secret], max_gpus_per_node: 2,\n"
        "         max_trials: 10, max_gpu_hours: 1000}\n"
    )
    machine.write_admin(
        "limits: {max_nodes: 4, max_time: 60, partitions: [gpu, cpu], max_trials: 20,\n"
        "         max_gpu_hours: 99.5}\n"
    )
    limits = machine.site().limits
    assert limits.max_nodes == 4
    assert limits.max_time == 30
    assert limits.partitions == ["gpu"]
    assert limits.max_gpus_per_node == 2
    assert limits.max_trials == 10
    assert limits.max_gpu_hours == 99.5


def test_null_does_not_lift_an_administrators_limit(machine: Machine) -> None:
    machine.write_user("limits: null\n")
    machine.write_admin("limits: {max_nodes: 4}\n")
    assert machine.site().limits.max_nodes == 4


def test_a_slurm_site_computes_with_cuda_unless_it_says_otherwise(machine: Machine) -> None:
    machine.write_user("name: x\n")
    assert machine.site().accelerator == "cuda"
    machine.write_user("accelerator: cpu\n")
    assert machine.site().accelerator == "cpu"


def test_a_digest_is_not_merged_with_another_files_path(machine: Machine) -> None:
    machine.write_user("image: /mine.sif\n")
    machine.write_admin(f"image: {{path: /theirs.sif, sha256: {'a' * 64}}}\n")
    image = machine.site().image
    assert image is not None
    assert (image.path, image.sha256) == ("/mine.sif", None)


def test_environment_merges_per_name_whatever_its_form(machine: Machine) -> None:
    option = machine.write("a.yaml", "env: [HTTPS_PROXY, {NCCL_DEBUG: WARN}, {A: null}]\n")
    machine.write_user("env: {NCCL_DEBUG: INFO, A: x, B: ''}\n")
    machine.write_admin("env: [C, HTTPS_PROXY]\n")
    assert machine.site(option).env == {
        "HTTPS_PROXY": None,
        "NCCL_DEBUG": "WARN",
        "A": None,
        "B": "",
        "C": None,
    }


# --- short and long forms, paths ------------------------------------------------------------
def test_short_and_long_forms(machine: Machine) -> None:
    machine.env["DATA"] = "/big/data"
    machine.write_user(
        "image: ~/train.sif\n"
        "roles: {tensorrt: {image: {path: $DATA/t.sif, sha256: 'sha256:" + "a" * 64 + "'}}}\n"
        "binds: ['/a', '/b:/c', '$DATA:/d:ro', {source: '/e:f', read_only: true}]\n"
        "time: 1-12:00:00\n"
        "run_root: $DATA/runs\n"
        "scratch: $TMPDIR\n"
    )
    site = machine.site()
    assert site.image is not None
    assert site.image.path == str(Path.home() / "train.sif")
    tensorrt = site.roles.tensorrt.image
    assert tensorrt is not None
    assert (tensorrt.path, tensorrt.sha256) == ("/big/data/t.sif", "a" * 64)
    assert [(b.source, b.target, b.read_only) for b in site.binds] == [
        ("/a", None, False),
        ("/b", "/c", False),
        ("/big/data", "/d", True),
        ("/e:f", None, True),
    ]
    assert site.time == 36 * 60
    assert site.run_root == "/big/data/runs"
    assert site.scratch == "$TMPDIR", "scratch is filled in on the node, not here"


def test_python_is_a_path_wherever_it_stands(machine: Machine) -> None:
    machine.env["VENVS"] = "/shared/venvs"
    machine.write_user(
        "container: none\npython: ~/venv/bin/python\n"
        "roles: {cpu: {python: $VENVS/cpu/bin/python}}\n"
    )
    site = machine.site()
    assert site.python == str(Path.home() / "venv/bin/python")
    assert site.roles.cpu.python == "/shared/venvs/cpu/bin/python"


# --- what is wrong ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("acount: x\n", "{file}:1:1: acount: unknown key; did you mean 'account'?"),
        (
            "time: soon\n",
            "{file}:1:7: time: found 'soon'; allowed: minutes (120), hours:minutes:seconds",
        ),
        ("time: 12:30\n", "so write 12:30:00"),
        ("gpu: {request: gpus}\n", "{file}:1:16: gpu.request: found 'gpus'; allowed: "),
        ("signal_lead_s: 5\n", "{file}:1:16: signal_lead_s: found 5; allowed: ≥ 10"),
        ("binds: ['/a:/b:xx']\n", "{file}:1:9: binds[0]: found '/a:/b:xx'; allowed: 'source'"),
        ('module_lines: ["a\\nb"]\n', "module_lines[0]: found 'a\\nb'; allowed: one line of text"),
        ("image: {path: /x, sha256: abc}\n", "allowed: 64 hexadecimal digits"),
        ("image: x.sif\n", "{file}: image: 'x.sif' must be an absolute path"),
        ("run_root: $NOPE/runs\n", "names $NOPE, which is not set"),
        ("mem_gb: lots\n", "{file}:1:9: mem_gb: found 'lots' (text); allowed: a number"),
        ("a: [\n", "not valid YAML"),
        ("limits: {max_trials: 0}\n", "limits.max_trials: found 0; allowed: ≥ 1"),
        ("limits: {max_gpu_hours: 0}\n", "limits.max_gpu_hours: found 0; allowed: > 0"),
        # roles
        (
            "name: x\npartitions: {train: gpu}\n",
            "{file}:2:1: partitions: this key is gone; write roles.<role>.partition (roles: train, "
            "cpu, tensorrt), or partition at the top level for all roles",
        ),
        (
            "images: {train: /x.sif}\n",
            "{file}:1:1: images: this key is gone; write roles.<role>.image (roles: train, cpu, "
            "tensorrt), or image at the top level for all roles",
        ),
        ("roles: {trian: {}}\n", "{file}:1:9: roles.trian: unknown key; did you mean 'train'?"),
        ("roles: {cpu: {nodes: 1}}\n", "{file}:1:15: roles.cpu.nodes: unknown key; "),
        ("roles: {cpu: {time: 0}}\n", "{file}:1:21: roles.cpu.time: found 0; allowed: at least"),
        (
            "roles: {train: {image: x.sif}}\n",
            "{file}: roles.train.image: 'x.sif' must be an absolute path",
        ),
        (
            "roles: {train: {container: none, python: bin/python}}\n",
            "{file}: roles.train.python: 'bin/python' must be an absolute path",
        ),
        ("container: docker\n", "{file}:1:12: container: found 'docker'; allowed: apptainer, none"),
        # env
        ("env: ['A=1']\n", "{file}:1:7: env[0]: found 'A=1'; allowed: the name of an environment"),
        ("env: {A-B: x}\n", "env.A-B: found 'A-B'; allowed: the name of an environment variable"),
        ("env: [A, 5]\n", "{file}:1:10: env[1]: found 5; allowed: the name of an environment"),
        (
            "env: [{A: x, B: y}]\n",
            "{file}:1:7: env[0]: found a section with A, B; allowed: the name of an environment "
            "variable, or one 'NAME: value'",
        ),
        (
            "env: {A: 1}\n",
            "{file}:1:10: env.A: found 1 (write it in quotes to make it text); allowed: text",
        ),
        ("env: [{A: yes}]\n", "{file}:1:11: env[0].A: found true (write it in quotes"),
        ('env: {A: "x\\ny"}\n', "allowed: text without line breaks and NUL"),
        ('env: {A: "x\\0"}\n', "allowed: text without line breaks and NUL"),
        ("env: [A, {A: x}]\n", "allowed: each name once; A is given twice"),
        (
            "env: A\n",
            "{file}:1:6: env: found 'A'; allowed: a list of names, or 'NAME: value' lines",
        ),
        (
            "env: {MASTER_PORT: '1'}\n",
            "{file}:1:20: env.MASTER_PORT: found 'MASTER_PORT'; allowed: any name but those that "
            "the launch itself sets: CUDA_VISIBLE_DEVICES, ",
        ),
        ("env: [CUDA_VISIBLE_DEVICES]\n", "{file}:1:7: env[0]: found 'CUDA_VISIBLE_DEVICES'"),
        ("env: [{RTDETR_RESUME: '1'}]\n", "found 'RTDETR_RESUME'; allowed: any name but"),
    ],
)
def test_a_wrong_profile_is_named_with_its_place(machine: Machine, text: str, message: str) -> None:
    path = machine.write_user(text)
    with pytest.raises(SiteError) as error:
        machine.find()
    assert message.replace("{file}", str(path)) in str(error.value)


# --- contradictions ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "container: none\nimage: /x.sif\n",
            "{file}:2:8: image: found '/x.sif'; container is 'none' in {file}, so it is not used: "
            "leave it out, or write container: apptainer beside it",
        ),
        (
            "roles: {cpu: {container: none, image: {path: /x.sif}}}\n",
            "{file}:1:39: roles.cpu.image: found a section with path; roles.cpu.container is "
            "'none' in {file}, so it is not used",
        ),
        (
            "container: none\nroles: {tensorrt: {image: /x.sif}}\n",
            "{file}:2:27: roles.tensorrt.image: found '/x.sif'; container is 'none'",
        ),
        (
            "image: /x.sif\npython: /venv/bin/python\n",
            "{file}:2:9: python: found '/venv/bin/python'; container is 'apptainer' by default, so "
            "it is not used: leave it out, or write container: none beside it",
        ),
        (
            "container: none\nroles: {cpu: {container: apptainer, image: /x, python: /p}}\n",
            "{file}:2:56: roles.cpu.python: found '/p'; roles.cpu.container is 'apptainer'",
        ),
    ],
)
def test_what_the_container_leaves_unused_is_refused(
    machine: Machine, text: str, message: str
) -> None:
    path = machine.write_user(text)
    with pytest.raises(SiteError) as error:
        machine.find()
    assert message.replace("{file}", str(path)) in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "image: /x.sif\nroles: {cpu: {container: none}}\n",
        "python: /p\nimage: /x.sif\nroles: {cpu: {container: none}}\n",
        "container: none\npython: /p\nroles: {train: {container: apptainer, image: /x.sif}}\n",
        "container: none\nimage: null\n",
        "scheduler: local\nimage: /x.sif\npython: /p\n",
    ],
)
def test_what_another_role_uses_is_no_contradiction(machine: Machine, text: str) -> None:
    machine.write_user(text)
    machine.find()


def test_a_nearer_file_may_do_without_a_farther_ones_image(machine: Machine) -> None:
    machine.write_user("container: none\n")
    machine.write_admin("image: /theirs.sif\n")
    assert machine.site().for_role("train").image is None


def test_an_image_that_a_farther_file_leaves_unused_is_refused(machine: Machine) -> None:
    user = machine.write_user("image: /mine.sif\n")
    admin = machine.write_admin("container: none\n")
    with pytest.raises(SiteError) as error:
        machine.find()
    assert f"{user}:1:8: image: found '/mine.sif'; container is 'none' in {admin}" in str(
        error.value
    )
    machine.write_user("image: /mine.sif\ncontainer: apptainer\n")
    image = machine.site().for_role("train").image
    assert image is not None
    assert image.path == "/mine.sif"


def test_a_limit_tells_where_it_stands(machine: Machine) -> None:
    user = machine.write_user("limits:\n  max_nodes: 2\n  max_time: 90\n  partitions: [gpu]\n")
    admin = machine.write_admin(
        "limits: {max_nodes: 4,\n  max_time: 60, partitions: [gpu, cpu],\n  max_gpu_hours: 9}\n"
    )
    limits = machine.site().limits
    places = {name: limits.place(name) for name in type(limits).model_fields}
    assert places == {
        "max_nodes": f" ({user}:2)",
        "max_time": f" ({admin}:2)",
        "partitions": f" ({user}:4)",
        "max_gpu_hours": f" ({admin}:3)",
        "max_gpus_per_node": "",
        "max_trials": "",
    }


@pytest.mark.parametrize("way", ["option", "variable"])
def test_no_profile_of_a_users_own_gets_around_the_administrators_limits(
    machine: Machine, way: str
) -> None:
    machine.write_admin("limits: {max_nodes: 4, partitions: [gpu]}\n")
    own = machine.write_user("limits: {max_nodes: 99, partitions: null}\npartition: secret\n")
    other = own.with_name("other.yaml")
    other.write_text(own.read_text())
    if way == "variable":
        machine.env["RTDETR_SLURM_SITE"] = str(other)
    found = machine.site(other if way == "option" else None)
    assert (found.limits.max_nodes, found.limits.partitions) == (4, ["gpu"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("env: [A_TOKEN: hunter2]\n", "env[0].A_TOKEN: found 'A_TOKEN'; allowed: any name but a "),
        ("env: {A_TOKEN: null}\n", "write secrets: [A_TOKEN], and set it where you submit"),
        (
            "module_lines: [ls, 'export A_TOKEN=hunter2']\n",
            "module_lines[1]: the value of A_TOKEN would be in the batch script and in run.json",
        ),
        (
            "apptainer_flags: ['--env=A=b,A_TOKEN=hunter2']\n",
            "apptainer_flags[0]: A_TOKEN would be seen by everybody on the node",
        ),
        (
            "notify_command: [/bin/notify, --api-key=hunter2]\n",
            "notify_command[1]: the value of --api-key would be in run.json, and seen by everybody",
        ),
        ("secrets: [MASTER_ADDR]\n", "any name but those that the launch itself sets"),
    ],
)
def test_secrets_have_a_place_of_their_own(machine: Machine, text: str, message: str) -> None:
    machine.write_user(text)
    with pytest.raises(SiteError) as caught:
        machine.site()
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)
