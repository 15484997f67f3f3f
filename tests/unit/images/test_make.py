"""What is refused before and after apptainer has run; tests/cluster has the real one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.cli.main import main
from rtdetr_slurm.errors import ActionError, RequestError, SiteError
from rtdetr_slurm.images.make import Order, make_image
from rtdetr_slurm.runs.images import ImageRecord, record_image

# build WORDS… FILE SOURCE writes the file; `exec … false` is what SOURCE `bad` leaves.
APPTAINER = """#!/bin/sh
case $1 in
build) shift; while [ $# -gt 2 ]; do shift; done
    [ "$2" = fails ] && { echo half > "$1"; exit 7; }
    echo "$2 $APPTAINER_TMPDIR $APPTAINER_CACHEDIR" > "$1" ;;
--quiet) grep -q '^bad ' "$9" "${10}" 2>/dev/null && { echo "FATAL: no" >&2; exit 255; } ; exit 0 ;;
*) exit 1 ;;
esac
"""


@pytest.fixture
def apptainer(tmp_path: Path) -> str:
    path = tmp_path / "apptainer"
    path.write_text(APPTAINER)
    path.chmod(0o755)
    (tmp_path / "images").mkdir()
    (tmp_path / "tmp").mkdir()
    return str(path)


def make(apptainer: str, source: str = "good", environ: Mapping[str, str] = {}, **more: Any) -> Any:
    folder = Path(apptainer).parent
    tmp = {"PATH": os.environ["PATH"], "APPTAINER_TMPDIR": str(folder / "tmp"), **environ}
    target = folder / "images" / "a.sif"
    order = Order("build", source, target, apptainer, environ=tmp, **more)
    return make_image(order, folder / "cache.json", lambda _: None)


def left(apptainer: str) -> list[str]:
    folder = Path(apptainer).parent
    return [path.name for part in ("images", "tmp") for path in (folder / part).iterdir()]


def test_it_is_there_whole_and_its_digest_is_remembered(apptainer: str) -> None:
    made = make(apptainer)
    assert left(apptainer) == ["a.sif"]
    path = Path(made.path)
    assert made.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    said: list[str] = []
    cache = Path(apptainer).with_name("cache.json")
    assert record_image(path, None, apptainer, cache, said.append) == made
    assert said == []
    _, tmp, cached = path.read_text().split()
    assert Path(tmp).parent.name == "tmp"
    assert cached == f"{tmp}/cache"  # the home folder is not filled


@pytest.mark.parametrize(
    ("source", "more", "message"),
    [
        ("fails", {}, "apptainer build ended with 7"),
        ("bad", {}, "does not run here: FATAL: no"),
        ("good", {"sha256": "0" * 64}, "is demanded"),
        ("good", {"space_gb": 1e9}, r"GB free, and the image may take .*--space"),
        ("-x", {}, "no definition file"),
    ],
)
def test_a_failure_leaves_everything_as_it_was(
    apptainer: str, source: str, more: dict[str, Any], message: str
) -> None:
    make(apptainer)
    old = (Path(apptainer).parent / "images" / "a.sif").read_bytes()
    with pytest.raises((ActionError, SiteError, RequestError), match=message):
        make(apptainer, source, replace=True, **more)
    assert left(apptainer) == ["a.sif"]
    assert (Path(apptainer).parent / "images" / "a.sif").read_bytes() == old


def test_an_image_that_is_there_stays_unless_it_is_to_be_replaced(apptainer: str) -> None:
    first = make(apptainer)
    with pytest.raises(RequestError, match="exists already and is left as it is"):
        make(apptainer)
    assert make(apptainer, "other", replace=True).sha256 != first.sha256


@pytest.mark.parametrize("name", ["SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE", "SLURM_GPUS_PER_NODE"])
def test_no_gpu_waits_for_an_image(apptainer: str, name: str) -> None:
    with pytest.raises(SiteError, match=rf"holds GPUs \({name}=2\)"):
        make(apptainer, environ={"SLURM_JOB_ID": "1", name: "2"})
    make(apptainer, environ={"SLURM_JOB_ID": "1", name: "0"})


def test_a_digest_that_is_none_is_refused_before_minutes_are_spent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["image", "build", "--site", "local", "-o", "a.sif", "--sha256", "abc"]) == 2
    assert "--sha256: found 'abc'; allowed: 64 hexadecimal digits" in capsys.readouterr().err


def test_each_role_has_its_definition_and_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    orders: list[Order] = []

    def made(order: Order, *_: object) -> ImageRecord:
        orders.append(order)
        return ImageRecord(str(order.target), 1, None, "0" * 64)

    monkeypatch.setattr("rtdetr_slurm.images.make.make_image", made)
    site = tmp_path / "site.yaml"
    site.write_text("image: /images/t.sif\nroles: {tensorrt: {image: /images/d.sif}}")
    for role in ("train", "tensorrt"):
        assert main(["image", "build", "--site", str(site), "--role", role]) == 0
    assert [(order.source, str(order.target)) for order in orders] == [
        ("Apptainerfile", "/images/t.sif"),
        ("containers/tensorrt.def", "/images/d.sif"),
    ]
    assert "profile  roles.tensorrt.image: {path: /images/d.sif" in capsys.readouterr().out
    site.write_text("image: /images/t.sif")
    assert main(["image", "build", "--site", str(site), "--role", "tensorrt"]) == 3
    assert "names no roles.tensorrt.image" in capsys.readouterr().err
