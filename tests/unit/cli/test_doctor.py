"""`doctor --no-job` and `site init` as a user calls them, with a Slurm that answers as told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cluster_support import ASSOCIATIONS, CONFIG, NODES, PARTITIONS
from slurm_support import FakeSlurm

from rtdetr_slurm.cli.main import main
from rtdetr_slurm.doctor import examine, login_checks
from rtdetr_slurm.doctor.finding import Finding, Outcome
from rtdetr_slurm.slurm.commands import SlurmUnreachable


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    programs = tmp_path / "bin"
    programs.mkdir()
    fake = FakeSlurm(programs)
    texts = {"config": CONFIG, "partition": PARTITIONS, "node": NODES, "assoc": ASSOCIATIONS}
    for name, text in texts.items():
        (programs / f"{name}.txt").write_text(text)
    cases = "".join(f"*' {name}'*) cat {programs}/{name}.txt;;\n" for name in texts)
    show = f'case " $*" in\n{cases}*) echo vision;;\nesac'
    fake.answer("scontrol", show)
    fake.answer("sacctmgr", show)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RTDETR_SLURM_SITE", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return fake


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    image = tmp_path / "rtdetr.sif"
    image.write_bytes(b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0")
    path = tmp_path / "site.yaml"
    path.write_text(f"partition: train\nimage: {image}\nrun_root: {tmp_path}/runs\n")
    return path


def test_all_is_well(
    slurm: FakeSlurm,
    profile: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(login_checks, "_LITTLE_GIB", 0.0)  # whatever room this machine has
    assert main(["doctor", "--no-job", "--site", str(profile)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line[:11].strip() for line in lines} == {"ok", "not checked"}
    assert any("Slurm 22.05.8, cluster alpha" in line for line in lines)
    assert slurm.calls("sbatch") == []


def test_what_is_wrong_is_one_line_with_its_remedy(
    slurm: FakeSlurm, profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile.write_text(profile.read_text().replace("train", "gpu"))
    assert main(["doctor", "--no-job", "--site", str(profile)]) == 3
    [line] = [one for one in capsys.readouterr().out.splitlines() if one.startswith("failure")]
    assert "slurm.partition" in line
    assert "→ set partition in the profile to one of: train, infer" in line


def test_a_file_that_is_no_image(
    slurm: FakeSlurm, profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = profile.parent / "rtdetr.sif"
    image.write_text("not an image")
    assert main(["doctor", "--no-job", "--site", str(profile)]) == 3
    [line] = [one for one in capsys.readouterr().out.splitlines() if one.startswith("failure")]
    assert f"{image} is a file, and no container image" in line
    assert "→ set image in the profile" in line


def test_the_document(slurm: FakeSlurm, profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["doctor", "--no-job", "--json", "--partition", "infer", "--site", str(profile)]
    assert main(asked) == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["schema_version"], document["outcome"]) == (1, "failure")
    assert (document["site"], document["profiles"]) == ("cluster", [str(profile)])
    assert (document["settings"], document["kept_in"]) == ({}, None)
    [infer] = [one for one in document["findings"] if one["where"] == "infer"]
    assert (infer["id"], infer["outcome"]) == ("slurm.partition", "failure")
    assert set(infer) == {"id", "where", "outcome", "found", "remedy"}


def test_without_slurm_the_rest_is_told_all_the_same(
    slurm: FakeSlurm, profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says = "printf 'slurm_load: Unable to contact controller\\nor its backup\\n' >&2; exit 1"
    slurm.answer("scontrol", says)
    assert main(["doctor", "--site", str(profile)]) == 3
    out = capsys.readouterr().out
    assert "Unable to contact controller; or its backup  → run this on a login node" in out
    assert "site.image" in out
    assert main(["site", "init", "-o", "-"]) == 3
    assert "\nrun this on a login node" in capsys.readouterr().err


def test_a_slurm_that_falls_silent_leaves_a_document(
    slurm: FakeSlurm,
    profile: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def silent(*_: object) -> None:
        raise SlurmUnreachable("squeue does not answer")

    monkeypatch.setattr(examine, "examine_by_job", silent)
    assert main(["doctor", "--json", "--site", str(profile)]) == 3
    last = json.loads(capsys.readouterr().out)["findings"][-1]
    assert (last["id"], last["found"]) == ("probe.job", "squeue does not answer")


def test_a_draft_goes_where_the_own_profile_belongs(
    slurm: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["site", "init"]) == 0
    path = tmp_path / ".config" / "rtdetr-slurm" / "site.yaml"
    shown = capsys.readouterr()
    assert shown.out.strip() == str(path)
    assert "could not be found out: the image" in shown.err
    assert "partition: train" in path.read_text()
    path.write_text("name: mine\n")
    assert main(["site", "init"]) == 2
    assert path.read_text() == "name: mine\n"
    assert main(["site", "init", "--output", "-"]) == 0
    assert "account: vision" in capsys.readouterr().out


@pytest.mark.parametrize("remedy", ["", "do that"])
@pytest.mark.parametrize("outcome", Outcome)
def test_a_remedy_stands_where_something_is_wrong(outcome: Outcome, remedy: str) -> None:
    wrong = outcome in (Outcome.WARNING, Outcome.FAILURE)
    if wrong == bool(remedy):
        assert Finding("a.b", outcome, "so it is", remedy).remedy == remedy
    else:
        with pytest.raises(ValueError, match="a remedy exactly where"):
            Finding("a.b", outcome, "so it is", remedy)
