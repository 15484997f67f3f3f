"""Filling the administrators' sbatch templates; tests/cluster runs what comes of it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from launch_support import write_dataset

from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.launch.rendezvous import FIRST_PORT, PORT_COUNT
from rtdetr_slurm.resources import sbatch_dir
from rtdetr_slurm.submission.backends import scripts
from rtdetr_slurm.submission.prepare import Prepared, prepare
from rtdetr_slurm.submission.templates import commands, render

TEMPLATES = sorted(sbatch_dir().glob("*.sbatch"))
HOSTILE = 'a\'b $(touch pwned) "c" `d`'


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Prepare a spec on a site with these keys."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    spec = write_dataset(tmp_path / "data")
    image = tmp_path / "train.sif"
    image.touch()

    def prepared(*overrides: str, then: tuple[str, ...] = (), **profile: Any) -> Prepared:
        keys = {"image": str(image), "partition": "gpu", "run_root": str(tmp_path / "runs")}
        (tmp_path / "site.yaml").write_text(yaml.safe_dump(keys | profile))
        return prepare(spec, overrides, site=str(tmp_path / "site.yaml"), then=then)

    return prepared


def settings(script: str) -> dict[str, Any]:
    """What the second block sets, as bash sees it."""
    block = script.split("# >>> settings")[1].split("# <<< settings")[0]
    names = ("KIT", "WORK", "RESULTS", "PROGRAM", "ACTION", "IMAGE", "GPUS", "SCRATCH")
    lists = ("ARGUMENTS", "PARENTS", "BINDS", "CONTAINER_ENV", "APPTAINER_FLAGS")
    show = [f'printf "%s\\0" "${name}"' for name in names]
    show += [f'printf "%s\\0" "${{#{name}[@]}}" "${{{name}[@]}}"' for name in lists]
    block = block.split("\nSPEC=")[0]
    done = subprocess.run(
        ["bash", "-eu"], input="\n".join([block, *show]), capture_output=True, text=True, check=True
    )
    words = done.stdout.split("\0")
    found: dict[str, Any] = {name: words.pop(0) for name in names}
    for name in lists:
        count = int(words.pop(0))
        found[name] = [words.pop(0) for _ in range(count)]
    return found


@pytest.mark.parametrize("path", [*TEMPLATES, sbatch_dir() / "launch.sh"], ids=lambda p: p.name)
def test_each_file_is_bash(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)


def test_the_templates_are_those_that_there_should_be() -> None:
    assert [path.stem for path in TEMPLATES] == ["deploy", "export", "stage", "sweep", "train"]
    for path in TEMPLATES:
        text = path.read_text()
        marks = re.findall(r"^# (?:>>>|<<<) (?:resources|settings)", text, re.MULTILINE)
        assert [mark[2:] for mark in marks] == [
            ">>> resources",
            "<<< resources",
            ">>> settings",
            "<<< settings",
        ]
        assert all(
            line.startswith("#") for line in text.split("# <<< resources")[0].splitlines() if line
        )


def test_a_rendered_script_is_its_template_but_for_two_blocks(asked: Any) -> None:
    [text] = render(asked()).values()
    template = (sbatch_dir() / "train.sbatch").read_text()

    def around(script: str) -> str:
        for name in ("resources", "settings"):
            script = re.sub(
                rf"(# >>> {name}\n).*(# <<< {name}\n)", r"\1\2", script, flags=re.DOTALL
            )
        return script

    assert around(text) == around(template)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_what_is_asked_of_slurm_is_what_submit_asks(asked: Any) -> None:
    prepared = asked("job.time=90", "job.notify=ann@example.org", time=30, gpu={"type": "a100"})
    own = {"output", "comment", "chdir"}

    def lines(script: str) -> set[str]:
        found = re.findall(r"^#SBATCH --([a-z-]+)(.*)$", script, re.MULTILINE)
        return {name + value for name, value in found if name not in own}

    [rendered] = render(prepared).values()
    [submitted] = scripts(prepared.plan, prepared.run_dir, prepared.name).values()
    assert lines(rendered) == lines(submitted)
    assert "gpus-per-node=a100:1" in lines(rendered)
    assert "#SBATCH --comment=rtdetr-slurm:rendered:train\n" in rendered


def test_a_chain_takes_what_the_stage_before_has_left(asked: Any) -> None:
    source = asked().spec["dataset"]["train_data_sources"][0]
    scored = f"dataset.test_data_sources={json.dumps(source)}"
    prepared = asked(scored, then=("evaluate",))
    texts = render(prepared)
    train, evaluate = (settings(texts[name]) for name in ("train", "evaluate"))
    assert evaluate["PARENTS"] == [f"evaluate.checkpoint={train['RESULTS']}"]
    assert train["PARENTS"] == []
    assert evaluate["ACTION"] == "evaluate"
    files = {name: Path("/kit of us") / f"{name}.sbatch" for name in texts}
    assert commands(prepared, files) == [
        "job1=$(sbatch --parsable '/kit of us/train.sbatch')",
        "job2=$(sbatch --parsable --dependency=afterok:$job1 --kill-on-invalid-dep=yes "
        "'/kit of us/evaluate.sbatch')",
    ]


def test_no_value_is_read_by_the_shell(asked: Any) -> None:
    prepared = asked(
        scratch="$TMPDIR",
        env={"A": HOSTILE, "HTTPS_PROXY": None},
        apptainer_flags=[HOSTILE],
        binds=[{"source": "/data 'x' \"y\" `z`", "target": "/data"}],
    )
    [text] = render(prepared).values()
    found = settings(text)
    assert found["CONTAINER_ENV"] == ["OMP_NUM_THREADS", f"A={HOSTILE}", "HTTPS_PROXY"]
    assert found["APPTAINER_FLAGS"] == [HOSTILE]
    assert found["SCRATCH"] == "$TMPDIR"
    assert 'type=bind,"source=/data \'x\' ""y"" `z`",destination=/data' in found["BINDS"]
    assert not Path("pwned").exists()
    spec = text.split("<<'END_OF_SPEC'\n")[1].split("\nEND_OF_SPEC\n")[0]
    assert yaml.safe_load(spec)["train"]["results_dir"] == found["RESULTS"]


def test_a_folder_of_the_sites_own_wins_by_name(asked: Any, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    ours = (sbatch_dir() / "train.sbatch").read_text()
    (own / "train.sbatch").write_text(ours.replace("#!/bin/bash", "#!/bin/bash -l", 1))
    [text] = render(asked(templates=str(own))).values()
    assert text.startswith("#!/bin/bash -l\n")
    assert settings(text)["KIT"] == str(sbatch_dir())
    (own / "launch.sh").touch()
    [text] = render(asked(templates=str(own))).values()
    assert settings(text)["KIT"] == str(own)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("# <<< settings", "# end"), "needs the lines '# >>> settings' and '# <<< settings'"),
        (("#!/bin/bash", "# train"), "the first line is no '#!/bin/bash'"),
        (("# >>> resources", "# >>> resources\n# >>> resources"), "each once"),
    ],
)
def test_a_template_without_its_blocks_is_refused_by_name(
    asked: Any, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    (tmp_path / "own").mkdir()
    path = tmp_path / "own" / "train.sbatch"
    path.write_text((sbatch_dir() / "train.sbatch").read_text().replace(*change, 1))
    with pytest.raises(SiteError, match=rf"template {path}: .*") as error:
        render(asked(templates=str(tmp_path / "own")))
    assert message in str(error.value)


def test_limits_hold_for_what_is_rendered(asked: Any) -> None:
    with pytest.raises(SiteError, match=r"num_nodes: found 2; at most 1 \(.*site\.yaml:\d+\)"):
        asked("train.num_nodes=2", limits={"max_nodes": 1})


def test_taos_image_is_not_for_templates(asked: Any) -> None:
    """They do not keep it to its nodes and GPUs."""
    with pytest.raises(RequestError, match="runs in TAO's image, which only `submit` keeps"):
        render(asked(engine="tao"))


def test_without_slurm_there_is_nothing_to_render(asked: Any) -> None:
    with pytest.raises(SiteError, match="has no Slurm"):
        render(asked(scheduler="local", image=None))


def test_a_spec_cannot_end_its_own_quotation(asked: Any) -> None:
    prepared = asked()
    prepared.spec["model_name"] = "x\nEND_OF_SPEC\ntouch pwned"
    [text] = render(prepared).values()  # YAML writes a line break as an escape
    assert text.count("\nEND_OF_SPEC\n") == 1


@pytest.mark.parametrize(("job", "restart"), [(7, 0), (123456, 3), (12768, 1)])
def test_ports_are_spread_as_submits_are(job: int, restart: int) -> None:
    text = (sbatch_dir() / "launch.sh").read_text()
    [expression] = re.findall(r"MASTER_PORT=\$\(\((.*)\)\)", text)
    script = f"SLURM_JOB_ID={job} restart={restart}; echo $(({expression}))"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert FIRST_PORT <= int(done.stdout) < FIRST_PORT + PORT_COUNT


@pytest.mark.parametrize(
    ("scratch", "found"), [("$A/x y/${B}", "/a b/x y/c"), ("/t/$(touch pwned)`touch pwned`", None)]
)
def test_scratch_is_filled_in_and_nothing_is_run(
    tmp_path: Path, scratch: str, found: str | None
) -> None:
    text = (sbatch_dir() / "launch.sh").read_text()
    begin = text.index("filled_in() {")
    function = text[begin : text.index("\n}\n", begin) + 3]
    script = f"die() {{ exit 3; }}\n{function}\nfilled_in {shlex.quote(scratch)}"
    done = subprocess.run(
        ["/bin/bash", "-c", script],
        env={"A": "/a b", "B": "c"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == (scratch if found is None else found)
    assert list(tmp_path.iterdir()) == []
