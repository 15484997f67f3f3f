"""No value that a user or an administrator writes gets out of its `#SBATCH` line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from launch_support import STAGE
from site_support import Machine
from spec_files import TRAIN, load, only, problems

from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.model_check import Matches
from rtdetr_slurm.plan.model import Plan
from rtdetr_slurm.site.profile import Gpu, Limits, Role, Site
from rtdetr_slurm.slurm.executor import BatchExecutor
from rtdetr_slurm.slurm.names import (
    CONSTRAINT,
    GPU_TYPE,
    JOB_NAME,
    NAME,
    NAMES,
    Form,
    has_control_character,
    is_host,
)
from rtdetr_slurm.spec.job import FollowUp, JobConfig
from rtdetr_slurm.submission.backends import scripts
from rtdetr_slurm.submission.prepare import prepare

HOSTILE = "x\\'\"\ntouch /tmp/owned #"
"""What shlex's quoting carries over a line's end, where bash reads a command."""
BREAKS = ["\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\0", "\x1b"]


@pytest.mark.parametrize("key", ["account", "partition", "qos", "name"])
def test_a_spec_cannot_say_it(tmp_path: Path, key: str) -> None:
    entry = json.dumps({key: HOSTILE})
    line = only(problems(tmp_path, TRAIN + f"job: {entry}\n", action="train"))
    assert line.startswith(f"spec.yaml:5:{11 + len(key)}: job.{key}: found ")
    assert "\n" not in line
    then = f"job.then=[{json.dumps({'action': 'train', 'name': 'again', key: HOSTILE})}]"
    assert f"job.then[0].{key}: found" in only(problems(tmp_path, TRAIN, then, action="train"))


@pytest.mark.parametrize(
    "profile",
    [
        *({key: HOSTILE} for key in ("account", "partition", "qos", "constraint", "wckey")),
        *({key: HOSTILE} for key in ("name", "run_root", "scratch", "apptainer", "python")),
        {"gpu": {"type": HOSTILE}},
        {"roles": {"train": {"account": HOSTILE}}},
        {"limits": {"partitions": [HOSTILE]}},
        {"module_lines": [HOSTILE]},
    ],
    ids=str,
)
def test_a_profile_cannot_say_it(tmp_path: Path, profile: dict[str, Any]) -> None:
    machine = Machine(tmp_path)
    machine.write_user(json.dumps(profile))
    with pytest.raises(SiteError, match=r"site\.yaml:1:\d+: .*: found .*; allowed: "):
        machine.find()


def test_a_command_line_cannot_say_it(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--name"):
        prepare(tmp_path / "no.yaml", name=HOSTILE)


@pytest.mark.parametrize(
    "field", ["account", "partition", "qos", "constraint", "gpu_type", "gpu_request"]
)
def test_no_script_is_written_with_it(tmp_path: Path, field: str) -> None:
    stage = replace(STAGE, resources=replace(STAGE.resources, **{field: HOSTILE}))
    if field == "gpu_request":
        stage = replace(STAGE, launch=replace(STAGE.launch, wckey=HOSTILE))
    with pytest.raises(SiteError, match="is not written to a batch script"):
        scripts(Plan((stage,)), tmp_path / "run", None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("character", BREAKS)
@pytest.mark.parametrize(
    ("where", "parameters"),
    [
        ("folder", {}),
        ("comment", {"comment": "aBREAKb"}),
        ("dependency", {"dependency": "afterok:BREAK1"}),
        ("chdir", {"additional_parameters": {"chdir": "/runs/BREAK"}}),
    ],
)
def test_the_last_door_knows_no_exception(
    tmp_path: Path, where: str, parameters: dict[str, Any], character: str
) -> None:
    text = json.dumps(parameters).replace("BREAK", json.dumps(character)[1:-1])
    folder = tmp_path / (f"a{character}b" if where == "folder" else "a")
    with pytest.raises(SiteError, match="is not written to a batch script"):
        BatchExecutor(folder, ["true"], json.loads(text))


GOOD: list[tuple[Form, list[str]]] = [
    (NAME, ["lab", "project_465000123", "abc@v100", "def-prof_gpu", "a.b", "x:y/z", "_1"]),
    (NAMES, ["gpu", "gpu,gpu-long", "qos_gpu-t3"]),
    (CONSTRAINT, ["a100", "ib&nvlink", "[rack1|rack2]", "(a&b)*2", "a100,h100", "!old", "A=b"]),
    (GPU_TYPE, ["a100", "a100_3g.20gb", "nvidia_a100-sxm4-80gb", "1g.10gb+me"]),
    (JOB_NAME, ["a", "my-job_1.2", "x" * 64]),
]
BAD: list[tuple[Form, list[str]]] = [
    (NAME, ["", "a b", "-a", "a,b", "a'b", 'a"', "a\\", "$HOME", "a`b`", "a;b", "a#b", "ü"]),
    (NAMES, ["", "gpu,", ",gpu", "a, b", "gpu\n", "gpu,,long"]),
    (CONSTRAINT, ["", "a b", "a'b", "a;b", "$a", "a\nb"]),
    (GPU_TYPE, ["", "a100:4", "a,b", "a b"]),
    (JOB_NAME, ["", "a b", "x" * 65, "a/b", "%j"]),
]


@pytest.mark.parametrize(
    ("form", "text", "good"),
    [(form, text, good) for good, rows in ((True, GOOD), (False, BAD))
     for form, texts in rows for text in texts],
)  # fmt: skip
def test_what_is_a_name(form: Form, text: str, good: bool) -> None:
    if good:
        assert Matches(*form).check(text) == text
        return
    with pytest.raises(ValueError, match=r"letters|features|GPU type"):
        Matches(*form).check(text)


def test_names_of_real_clusters_go_through(tmp_path: Path) -> None:
    job = "job: {account: abc@v100, partition: 'gpu,gpu-long', qos: qos_gpu-t3, name: a.b_c-1}\n"
    loaded = load(tmp_path, TRAIN + job, action="train")
    assert loaded.job.partition == "gpu,gpu-long"


def texts_of(model: Any) -> Iterator[str]:
    """The fields of a section that any one-line text fits."""
    for name, info in model.model_fields.items():
        kinds = (info.annotation, *get_args(info.annotation))
        form = any(isinstance(one, Matches) for one in _metadata(info))
        if str in map(_bare, kinds) and not form:
            yield name


def _metadata(info: Any) -> Iterator[Any]:
    yield from info.metadata
    for kind in get_args(info.annotation):
        yield from getattr(kind, "__metadata__", ())


def _bare(kind: Any) -> Any:
    return getattr(kind, "__origin__", kind)


def test_every_text_that_sbatch_gets_has_a_form() -> None:
    """What is left goes to no `#SBATCH` line, or is a path, which `run_root` and the guard see."""
    assert set(texts_of(JobConfig)) == {"parent"}
    assert set(texts_of(FollowUp)) == set()
    assert set(texts_of(Role)) == {"python"}
    assert set(texts_of(Site)) == {
        "python", "name", "scratch", "run_root", "network_interface", "apptainer",
        "apptainer_flags", "env", "models", "module_lines", "notify_command", "secrets",
        "templates", "cache_root",
    }  # fmt: skip
    assert set(texts_of(Gpu)) | set(texts_of(Limits)) == set()


def test_characters_that_end_a_line_are_known() -> None:
    assert all(has_control_character(f"a{character}b") for character in BREAKS)
    assert not has_control_character("a b/ü-$'\"\\%")


@pytest.mark.parametrize(
    ("name", "good"),
    [("east", True), ("a-1.b", True), ("--help", False), ("a,b", False), ("", False)],
)
def test_names_of_nodes_and_clusters(name: str, good: bool) -> None:
    assert is_host(name) is good
