"""Folders of the system are no place for data and results: in specs, profiles, plans, on nodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from launch_support import write_dataset
from site_support import Machine
from spec_files import TRAIN, load, only, problems

from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.launch.scratch import scratch_folder
from rtdetr_slurm.places import system_folder
from rtdetr_slurm.submission.prepare import prepare

BELOW = {"/proc/1/root": "/proc", "/sys/x": "/sys", "/dev/sda": "/dev", "/dev/shmem": "/dev"}
FOLDERS = ["/", "/opt", "/proc", "/usr", "/usr/lib", "/etc", "/opt/rtdetr", "/var", "/bin", "/dev"]
OTHERS = ["/opt/data", "/usr/share/data", "/etc/ssl/certs", "/dev/shm", "/dev/shm/x", "/home",
          "/var/tmp", "/data", "/optical", "/procedure", "/run/user/1", "/tmp"]  # fmt: skip


def test_which_folders_they_are() -> None:
    assert [system_folder(path) for path in FOLDERS] == FOLDERS
    for same in ("//opt", "/opt/", "/opt/../opt", "/data/../opt", "/./opt//"):
        assert system_folder(same) == "/opt"
    assert {path: system_folder(path) for path in BELOW} == BELOW
    assert [system_folder(path) for path in OTHERS] == [None] * len(OTHERS)


@pytest.mark.parametrize("folder", ["/", "/opt", "/proc/self", "//usr/", "file:///etc"])
@pytest.mark.parametrize(
    "field",
    [
        "results_dir",
        "train.results_dir",
        "dataset.train_data_sources[0].image_dir",
        "dataset.train_data_sources[0].json_file",
        "train.pretrained_model_path",
    ],
)
def test_a_spec_cannot_name_one(tmp_path: Path, field: str, folder: str) -> None:
    override = f"{field}={folder}"
    for line in problems(tmp_path, TRAIN, override, action="train"):
        if not folder.startswith("file:"):
            assert line.startswith(f"override '{override}': {field}: found '{folder}'; /")
        assert "is a folder of the system" in line or "files elsewhere" in line


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("$HOME/x", "a spec does not fill in $HOME; allowed: the path itself, or ~ for home"),
        ("/data/$USER", "a spec does not fill in $"),
        ("~no-such-user/x", "there is no such user; allowed: ~ for the own home folder"),
        (r'"/a\nb"', "allowed: a path without line breaks and other control characters"),
    ],
)
def test_a_path_of_a_spec_is_meant_as_it_stands(tmp_path: Path, path: str, reason: str) -> None:
    for field in ("results_dir", "dataset.train_data_sources[0].image_dir"):
        line = only(problems(tmp_path, TRAIN, f"{field}={path}", action="train"))
        assert f": {field}: found '" in line
        assert reason in line


@pytest.mark.parametrize(
    "path", ["~/x", "~root/x", r"/a/\${x}", "/$(x)/100$", "a b/ü", "/opt/data", "x.~1~"]
)
def test_other_paths_go_through(tmp_path: Path, path: str) -> None:
    load(tmp_path, TRAIN, f"results_dir={path}", action="train")


def test_the_place_in_the_file_is_named(tmp_path: Path) -> None:
    line = only(problems(tmp_path, TRAIN + "results_dir: /opt\n", action="train"))
    assert line == (
        "spec.yaml:5:14: results_dir: found '/opt'; /opt is a folder of the system, which would "
        "hide the image's own; allowed: a folder of your own"
    )


def test_a_relative_path_that_ends_at_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_dataset(tmp_path / "data")
    monkeypatch.chdir("/opt")
    for text in ("results_dir=.", "train.results_dir=../opt"):
        with pytest.raises(RequestError, match="found /opt; /opt is a folder of the system"):
            prepare(spec, [text], site="local")
    folder = tmp_path / "a $NAME"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(RequestError, match=r"a \$NAME/.*; a spec does not fill in \$NAME"):
        prepare(spec, site="local")


@pytest.mark.parametrize(
    "profile",
    [
        {"binds": ["/shared:/opt"]},
        {"binds": ["/usr"]},
        {"binds": [{"source": "/data", "target": "/proc/data"}]},
        {"binds": [{"source": "$ROOT", "target": "/x/../$TOP"}]},
        {"binds": ["/data:$ROOT"]},
        {"run_root": "/"},
        {"run_root": "$ROOT"},
        {"scratch": "/sys"},
    ],
    ids=str,
)
def test_a_profile_cannot_bind_one(tmp_path: Path, profile: dict[str, object]) -> None:
    machine = Machine(tmp_path)
    machine.env |= {"ROOT": "/", "TOP": "opt"}
    machine.write_user(json.dumps(profile))
    with pytest.raises(SiteError, match="is a folder of the system"):
        machine.find()


def test_a_profile_fills_in_variables_wherever_a_path_stands(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.env["DATA"] = "/data"
    binds = ["$DATA/a:$DATA/b:ro", {"source": "/", "target": "$DATA/host"}, "/etc/ssl/certs"]
    machine.write_user(json.dumps({"binds": binds, "apptainer": "$DATA/bin/apptainer"}))
    site = machine.site()
    assert [(bind.source, bind.target, bind.read_only) for bind in site.binds] == [
        ("/data/a", "/data/b", True),
        ("/", "/data/host", False),
        ("/etc/ssl/certs", None, False),
    ]
    assert site.apptainer == "/data/bin/apptainer"
    machine.write_user(json.dumps({"binds": ["/data:relative"]}))
    with pytest.raises(SiteError, match="'relative' must be an absolute path"):
        machine.find()


def test_a_node_does_not_take_one_forscratch_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE", "/dev")
    with pytest.raises(
        SiteError, match=r"scratch '\$SPACE' is /dev on this node; /dev is a folder"
    ):
        scratch_folder("$SPACE")
