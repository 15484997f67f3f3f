"""What the operating system refuses is one line and an exit code, never a traceback."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launch_support import local_stage, make_run, write_dataset
from os_support import NOBODY, as_another_user, files_of_at_most, open_to_all
from slurm_support import FakeSlurm

from rtdetr_slurm.cli import main as main_module
from rtdetr_slurm.cli.main import main
from rtdetr_slurm.runs.processes import process_facts
from rtdetr_slurm.runs.run import Run

Capture = pytest.CaptureFixture[str]
CLI = f"{sys.executable} -m rtdetr_slurm.cli.main"
SITE = "name: here\npartition: gpu\nimage: {folder}/train.sif\nrun_root: {folder}/runs\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, on the local site, with a home of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RTDETR_SLURM_SITE", "local")
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def shell(command: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        ["bash", "-c", command], capture_output=True, text=True, check=False, **options
    )


# --- streams -------------------------------------------------------------------------------
@pytest.mark.parametrize("arguments", ["--help", "logs --help", "status --json", "status"])
def test_a_full_disk_behind_stdout_is_told(folder: Path, arguments: str) -> None:
    make_run(folder / "runs", local_stage(folder / "results"))
    done = shell(f"{CLI} {arguments} > /dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "rtdetr-slurm: standard output: No space left on device; make room there"
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_closed_stdout_is_told_before_anything_is_done(folder: Path) -> None:
    spec = write_dataset(folder / "data")
    done = shell(f"{CLI} submit {spec} >&-")
    assert done.returncode == 1
    assert done.stderr == (
        "rtdetr-slurm: standard output is closed; send it to a file or to /dev/null\n"
    )
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full"])
def test_a_stderr_that_takes_nothing_changes_no_exit_code(stderr: str) -> None:
    done = shell(f"{CLI} status {stderr}")
    assert (done.returncode, done.stdout) == (0 if stderr == "2>&-" else 3, "")
    assert shell(f"{CLI} status nonsense {stderr}").returncode == 2
    document = json.loads(shell(f"{CLI} status --json {stderr}").stdout)
    assert document["runs"] == []


def test_a_reader_that_has_gone_is_no_fault(folder: Path) -> None:
    run = make_run(folder / "runs", local_stage(folder / "results"))
    run.record("submitted", stage="train", job_id="7")
    run.log_path("train", "7").write_text("line\n" * 100_000)
    done = shell(f"{CLI} logs {run.id} | head -n 1")
    assert (done.stdout, done.stderr) == ("line\n", "")


def test_a_terminal_that_knows_no_unicode_is_shown_escapes(folder: Path) -> None:
    run = make_run(folder / "runs", local_stage(folder / "results"))
    run.record("submitted", stage="train", job_id="7")
    run.log_path("train", "7").write_text("größe → \udc80\n", errors="surrogateescape")
    done = shell(f"{CLI} logs {run.id}", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "gr\\xf6\\xdfe \\u2192 \\ufffd\n"


# --- a home folder, which nobody needs -----------------------------------------------------
@pytest.mark.parametrize("home", [None, "", "/proc", "/dev/null"])
def test_submit_needs_no_home(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, home: str | None
) -> None:
    """None, an empty one, one that cannot be written to, and none at all."""
    slurm = a_slurm(folder, monkeypatch)
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", home)
    assert main(["submit", str(write_dataset(folder / "data"))]) == 0
    err = capsys.readouterr().err
    assert "submitted train-" in err
    assert ("the digest cannot be remembered in" in err) is bool(home)
    assert len(slurm.calls("sbatch")) == 1


@pytest.mark.parametrize("text", ["", "[]", '{"images": {"x": 1}}', "\0", "{", "[" * 100_000])
def test_a_broken_cache_is_made_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, text: str
) -> None:
    a_slurm(folder, monkeypatch)
    cache = folder / "home" / ".cache" / "rtdetr-slurm" / "images.json"
    cache.parent.mkdir(parents=True)
    cache.write_text(text)
    spec = str(write_dataset(folder / "data"))
    assert main(["submit", spec]) == 0
    assert "computing the digest" in capsys.readouterr().err
    assert main(["submit", spec]) == 0
    assert "computing the digest" not in capsys.readouterr().err


def test_a_user_without_an_entry_is_a_number(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_slurm(folder, monkeypatch)
    number = next(n for n in range(54321, 65000) if not known(n))
    monkeypatch.setattr(os, "getuid", lambda: number)
    assert main(["submit", str(write_dataset(folder / "data"))]) == 0
    [run] = (folder / "runs").iterdir()
    assert json.loads((run / "run.json").read_text())["user"] == str(number)


def known(number: int) -> bool:
    try:
        return bool(pwd.getpwuid(number))
    except KeyError:
        return False


@pytest.mark.parametrize("home", [None, ""])
def test_a_home_that_is_asked_for_must_be_known(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, home: str | None
) -> None:
    monkeypatch.setenv("HOME", "") if home == "" else monkeypatch.delenv("HOME")
    asked = "~/results" if home == "" else "~nobody-of-this-name/results"
    spec = str(write_dataset(folder / "data"))
    assert main(["submit", spec, f"results_dir={asked}", "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert f"found '{asked}'" in err
    assert "allowed: ~ for the own home folder" in err


def test_a_home_that_may_hide_a_profile_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    with open_to_all() as base:
        (base / "home" / ".config").mkdir(parents=True)
        (base / "home").chmod(0)
        monkeypatch.setenv("HOME", str(base / "home"))
        monkeypatch.delenv("RTDETR_SLURM_SITE")
        monkeypatch.chdir(base)
        with as_another_user():
            assert main(["status"]) == 3
        (base / "home").chmod(0o755)
    err = capsys.readouterr().err
    assert "cannot look for the site profile" in err
    assert "Permission denied; set HOME" in err


# --- folders and files ---------------------------------------------------------------------
def test_a_run_root_that_is_a_file_is_told(folder: Path, capsys: Capture) -> None:
    (folder / "runs").touch()
    for arguments in (["status"], ["status", "train-1"], ["logs", "train-1"]):
        assert main(arguments) == 2
        assert f"{folder}/runs: Not a directory" in capsys.readouterr().err
    assert main(["submit", str(write_dataset(folder / "data"))]) == 3
    assert "cannot make the run folder" in capsys.readouterr().err


def test_a_current_folder_that_is_gone_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["status"]) == 2
    assert "the current folder is gone" in capsys.readouterr().err
    monkeypatch.chdir(folder)


def test_without_room_nothing_is_made(folder: Path, capsys: Capture) -> None:
    spec = str(write_dataset(folder / "data"))
    with files_of_at_most(1000):
        assert main(["submit", spec]) == 3
    assert "cannot make the run folder" in capsys.readouterr().err
    assert list((folder / "runs").iterdir()) == []
    with files_of_at_most(1000):
        assert main(["default-specs", "train", "-o", "mine.yaml"]) == 2
    assert "cannot write mine.yaml: File too large" in capsys.readouterr().err
    assert main(["default-specs", "train", "-o", "mine.yaml"]) == 0


def test_no_memory_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def hungry(arguments: list[str]) -> int:
        return len(bytearray(2**62))

    monkeypatch.setattr(main_module, "_run", hungry)
    assert main(["status"]) == 3
    assert "leaves too little memory" in capsys.readouterr().err


def test_any_other_refusal_names_the_file(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    for path, code in (("/nonexistent/x", 2), ("/proc/1/mem", 3), ("/dev/full", 3)):

        def refused(arguments: list[str], path: str = path) -> int:
            with open(path, "r+b", buffering=0) as stream:  # noqa: PTH123
                try:
                    return stream.write(b"x")
                except OSError as error:
                    error.filename = path
                    raise

        monkeypatch.setattr(main_module, "_run", refused)
        assert main(["status"]) == code
        assert f"rtdetr-slurm: {path}: " in capsys.readouterr().err


def test_a_path_in_another_encoding_is_refused_before_anything_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    a_slurm(folder, monkeypatch)
    strange = folder / "gr\udcf6\udcdfe"
    strange.mkdir()
    monkeypatch.chdir(strange)
    spec = write_dataset(folder / "data")
    assert main(["submit", str(spec), "results_dir=here"]) == 2
    err = capsys.readouterr().err
    assert "the spec names a path that is not UTF-8: results_dir: " in err
    assert "gr\\udcf6" in err
    assert not (folder / "runs").exists()


# --- another user's runs -------------------------------------------------------------------
def others_run(base: Path, run_id: str) -> Run:
    run = make_run(base / "runs", local_stage(base / "results"), run_id=run_id)
    run.record("submitting", stage="train")
    run.record("submitted", stage="train", job_id="7", host="elsewhere", process_start=1)
    run.log_path("train", "7").write_text("line\n")
    return run


@pytest.mark.parametrize("closed", ["", "run.json", "events", "jobs/train/7_0_log.out"])
def test_a_private_run_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, closed: str
) -> None:
    with open_to_all() as base:
        ours = others_run(base, "train-20260102-000000-aaaa")
        private = others_run(base, "train-20260101-000000-bbbb")
        monkeypatch.chdir(base)
        main(["status"])  # what is imported when it is needed may be root's alone
        (private.path / closed).chmod(0)
        capsys.readouterr()
        with as_another_user():
            assert main(["status"]) == 0
            out, err = capsys.readouterr()
            states = {row.split()[0]: row.split()[1] for row in out.splitlines()[1:]}
            assert states == {ours.id: "unknown", private.id: "unreadable"}
            assert f"unreadable: {private.path / closed}" in err
            assert "Permission denied" in err
            for command in ("status", "logs"):
                assert main([command, private.id]) == 2, command
                assert "Permission denied" in capsys.readouterr().err
            assert main(["cancel", private.id]) in (2, 3), "by who asks first"
        (private.path / closed).chmod(0o755)
        monkeypatch.undo()


def test_another_users_run_is_not_cancelled(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Not even where it could be written to: it may name any process of ours as its own."""
    process = subprocess.Popen(["sleep", "60"])
    run = make_run(folder / "runs", local_stage(folder / "results"))
    run.record("submitting", stage="train")
    facts = process_facts(str(process.pid))
    run.record("submitted", stage="train", job_id=str(process.pid), **facts)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: NOBODY)
        assert main(["cancel", run.id]) == 3
    assert f"{run.id} is someone's, and is not yours to cancel" in capsys.readouterr().err
    assert process.poll() is None
    assert main(["cancel", run.id]) == 0
    assert process.wait(timeout=10) == -signal.SIGTERM


# --- no room while submitting --------------------------------------------------------------
def a_slurm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    (folder / "bin").mkdir()
    (folder / "train.sif").write_text("SIF")
    (folder / "site.yaml").write_text(SITE.format(folder=folder))
    monkeypatch.setenv("PATH", f"{folder}/bin:/usr/bin:/bin")
    monkeypatch.setenv("RTDETR_SLURM_SITE", str(folder / "site.yaml"))
    return FakeSlurm(folder / "bin")
