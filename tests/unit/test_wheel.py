"""The wheel of the working tree, in an environment of its own, as a user installs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from launch_support import write_dataset

REPOSITORY = Path(__file__).parents[2]
PACKAGE = "rtdetr_slurm"
SITE = "container: none\npartition: gpu\nrun_root: {root}\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that neither the tree nor an old build/ in it plays a part."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in (PACKAGE, "schemas", "specs", "sbatch"):
        shutil.copytree(REPOSITORY / name, tree / name, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tree)
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, tree)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of a new environment with the wheel and, for the dependencies, this one's packages.

    Those come by a .pth file, behind the wheel; this environment's own .pth files, and with them
    an editable install of the working tree, are not read.
    """
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip("--python", venv / "bin" / "python", "install", "--no-deps", "--no-index", wheel)
    [packages] = venv.glob("lib/python*/site-packages")
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "dependencies.pth").write_text("".join(f"{place}\n" for place in places))
    return venv / "bin"


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, text=True)


def output(program: Path, *arguments: str | Path, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env |= {"HOME": str(cwd), "PYTHONNOUSERSITE": "1"}
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def names(folder: str, pattern: str) -> set[str]:
    """Files of the repository, by their paths in it."""
    files = (REPOSITORY / folder).rglob(pattern)
    return {path.relative_to(REPOSITORY).as_posix() for path in files}


def test_the_wheel_has_every_module_schema_and_spec(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    data = names("schemas", "*.json") | names("specs", "*.yaml") | names("sbatch", "*")
    assert len(data) > 10
    sources = names(PACKAGE, "*.py") | names(PACKAGE, "*.cpp") | names(PACKAGE, "*.json")
    assert held == sources | {f"{PACKAGE}/py.typed"} | {f"{PACKAGE}/{name}" for name in data}


def test_an_installed_package_finds_its_own_files(programs: Path, tmp_path: Path) -> None:
    program = (
        "from rtdetr_slurm.resources import sbatch_dir, schemas_dir, specs_dir\n"
        "print(schemas_dir() / 'manifest.json', specs_dir() / 'site-gpu-cluster.yaml', sep='\\n')\n"
        "print(sbatch_dir() / 'launch.sh')"
    )
    found = output(programs / "python", "-c", program, cwd=tmp_path).splitlines()
    for path in map(Path, found):
        assert path.is_relative_to(programs.parent)
        assert path.read_bytes() == (REPOSITORY / path.parent.name / path.name).read_bytes()


def test_the_commands_of_a_first_day(programs: Path, tmp_path: Path) -> None:
    command = programs / "rtdetr-slurm"
    template = output(command, "default-specs", "train", cwd=tmp_path)
    schema = Path(template.splitlines()[0].split("$schema=")[1])
    assert schema.is_relative_to(programs.parent)
    assert schema.is_file()

    spec = write_dataset(tmp_path / "data")
    site = tmp_path / "site.yaml"
    site.write_text(SITE.format(root=tmp_path / "runs"))
    output(command, "validate", spec, cwd=tmp_path)
    plan = output(command, "submit", spec, "--dry-run", "--site", site, cwd=tmp_path)
    assert "#SBATCH --partition=gpu" in plan
    assert f"exec {programs / 'python'}" in plan
    assert not (tmp_path / "runs").exists()
