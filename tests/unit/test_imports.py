"""Who may import whom, read from the source of the whole package, and what a command loads."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from launch_support import local_stage, make_run, write_dataset

import rtdetr_slurm

PACKAGE = Path(rtdetr_slurm.__file__).parent
ROOT = PACKAGE.parent
HEAVY = {
    *("torch", "torchvision", "timm", "numpy", "PIL", "scipy", "optuna", "cryptography"),
    *("boto3", "botocore", "urllib3", "zstandard"),
}
GROUND = {
    "actions",
    "charts",
    "contract",
    "devices",
    "encryption",
    "errors",
    "figures",
    "files",
    "installed",
    "lifetime",
    "markup",
    "places",
    "records",
    "resolved_spec",
    "resources",
    "values",
}
"""Modules that every part may import: standard library only."""

# Part of the package → the parts it may import besides itself and the ground. The graph has no
# cycle, and the order is that of the way of a job.
MAY_IMPORT = {
    "yaml_source": set(),
    "yaml_edit": {"yaml_source"},
    "cipher": set(),
    "model_check": {"yaml_source"},
    "slurm": set(),
    "spec": {"slurm", "yaml_source", "model_check"},
    "site": {"slurm", "yaml_source", "model_check"},
    "plan": {"slurm", "spec", "site", "yaml_source"},
    "data": {"spec", "yaml_source"},
    "runs": {"plan", "slurm"},
    "storage": {"plan"},
    "weights": {"model_check", "runs", "spec", "yaml_source"},
    "staging": {
        *("data", "launch", "model_check", "plan", "runs", "spec", "storage", "weights"),
        "yaml_source",
    },
    "images": {"runs"},
    "launch": {"plan", "runs", "slurm"},
    "automl": {"launch", "plan", "runs", "slurm", "spec", "yaml_source", "model_check"},
    "controller": {"automl", "launch", "plan", "runs", "staging"},
    "local": {"plan", "runs", "slurm"},
    "submission": {
        *("automl", "data", "local", "model_check", "plan", "runs"),
        *("site", "slurm", "spec", "staging", "storage", "weights", "yaml_source"),
    },
    "doctor": {"launch", "plan", "runs", "site", "slurm", "submission"},
    "api": {"runs", "site", "submission"},
    "cli": {
        *("automl", "data", "doctor", "images", "model_check", "plan", "runs", "site"),
        *("spec", "staging", "storage", "submission", "yaml_edit"),
    },
    "vision": {"cipher", "data", "runs", "spec"},
    "engine": {"cipher", "data", "runs", "spec", "vision", "weights"},
    "deploy": {"cipher", "data", "engine", "runs", "spec", "vision"},
}
LOGIN_SIDE = set(MAY_IMPORT) - {"cipher", "vision", "engine", "deploy"}
ON_THE_NODE = ("controller", "launch", "local", "runs", *sorted(GROUND))
"""What runs outside the container on a compute node, with nothing but Python installed."""
ONLY_THE_MODEL = ("runs", "launch", "local")
"""Parts that read a plan back and make none: of plan/ they see what it is made of, no more."""


@cache
def modules() -> list[tuple[str, str, ast.Module]]:
    """Every module: its part of the package, its path, its syntax tree."""
    return list(read_modules())


def read_modules() -> Iterator[tuple[str, str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        part = relative.parts[0] if len(relative.parts) > 1 else relative.stem
        yield part, str(relative), ast.parse(path.read_text(), str(path))


def imported(tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    """Full names of what a module imports, also inside functions, not for type checking only."""
    only_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in only_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or "", node
            yield from ((f"{node.module}.{alias.name}", node) for alias in node.names)


def test_parts_import_only_what_lies_before_them() -> None:
    wrong = []
    for part, path, tree in modules():
        for name, _ in imported(tree):
            ours = name.split(".")[1:2] if name.startswith("rtdetr_slurm.") else []
            if part not in MAY_IMPORT or not ours or ours[0] == "__version__":
                continue
            allowed = MAY_IMPORT[part] | GROUND | {part}
            if ours[0] not in allowed:
                wrong.append(f"{path} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("part", ["vision", "engine"])
def test_no_module_needs_itself(part: str) -> None:
    """Not even for type checking: a reader can start at the bottom."""
    ours = {
        "rtdetr_slurm." + path.removesuffix(".py").replace("/", "."): tree
        for here, path, tree in modules()
        if here == part
    }
    needs = {
        name: {
            imported
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for imported in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        }
        & {*ours}
        for name, tree in ours.items()
    }
    assert sum(map(len, needs.values())) > len(ours) / 2
    while free := [name for name, needed in needs.items() if not needed & {*needs}]:
        needs = {name: needed for name, needed in needs.items() if name not in free}
    assert sorted(needs) == []


def test_every_part_has_a_rule() -> None:
    parts = {part for part, _, _ in modules()}
    assert parts == set(MAY_IMPORT) | GROUND | {"__init__"}


def test_of_a_plan_the_node_sees_the_model_alone() -> None:
    wrong = [
        f"{path} imports {name}"
        for part, path, tree in modules()
        if part in ONLY_THE_MODEL
        for name, _ in imported(tree)
        if name.startswith("rtdetr_slurm.plan") and not f"{name}.".startswith(PLAN_VALUES)
    ]
    assert wrong == []


PLAN_VALUES = tuple(f"rtdetr_slurm.plan.{name}." for name in ("model", "search", "staging"))


def test_there_is_no_cycle_among_modules() -> None:
    """Also not by imports inside functions: whoever needs the other at any time counts."""
    graph = {module_name(path): tree for _, path, tree in modules()}
    edges = {
        name: {
            found for full, _ in imported(tree) if (found := owner(full, graph)) and found != name
        }
        for name, tree in graph.items()
    }
    for name in graph:
        edges[name] -= {"rtdetr_slurm"}  # for the version; it imports nothing until it is asked
    assert list(TopologicalSorter(edges).static_order())


def module_name(path: str) -> str:
    parts = Path("rtdetr_slurm", path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def owner(full: str, graph: Mapping[str, object]) -> str | None:
    """The module that a full name is, or is a part of."""
    parts = full.split(".")
    names = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((name for name in names if name in graph), None)


_LAZY = ("automl", "data", "staging", "storage")


def test_the_login_side_never_loads_torch_at_import() -> None:
    wrong = []
    for part, path, tree in modules():
        inside_functions = {
            id(node)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in ast.walk(function)
        }
        for name, node in imported(tree):
            # Drawing the sample data set needs an imaging library, and loads it when it draws; a
            # search loads Optuna when it has a study; a store is reached when it is asked.
            lazily = part in _LAZY and id(node) in inside_functions
            if part in LOGIN_SIDE and name.split(".")[0] in HEAVY and not lazily:
                wrong.append(f"{path} imports {name}")
    assert wrong == []


@pytest.mark.parametrize(
    "part", sorted({"controller", "launch", "runs", *GROUND} - {"resolved_spec"})
)
def test_what_runs_on_the_node_imports_only_the_standard_library(part: str) -> None:
    wrong = []
    for here, path, tree in modules():
        if here == part:
            names = {name.split(".")[0] for name, _ in imported(tree)}
            foreign = names - set(sys.stdlib_module_names) - {"rtdetr_slurm", "__future__"}
            wrong += [f"{path} imports {name}" for name in sorted(foreign)]
    assert wrong == []


def test_the_launch_code_works_without_any_installed_package() -> None:
    names = [
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for part in ("launch", "local", "runs")
        for path in (PACKAGE / part).glob("*.py")
        if path.stem != "__init__"
    ]
    names.append("rtdetr_slurm.controller")
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    program += "\n".join(f"import {name}" for name in names)
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True)


def loaded_modules(*arguments: str, cwd: Path) -> set[str]:
    """Top-level modules that a command has loaded when it ends."""
    program = (
        "import sys\n"
        "from rtdetr_slurm.cli.main import main\n"
        f"code = main({list(arguments)!r})\n"
        "print('\\n'.join(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    env = os.environ | {"RTDETR_SLURM_SITE": "local"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


def test_help_loads_next_to_nothing(tmp_path: Path) -> None:
    loaded = loaded_modules("--help", cwd=tmp_path)
    assert loaded.isdisjoint(HEAVY | {"pydantic", "submitit", "yaml", "rich", "asyncio"})


@pytest.mark.parametrize("command", ["status", "logs", "cancel"])
def test_a_run_is_read_with_the_standard_library(tmp_path: Path, command: str) -> None:
    run = make_run(tmp_path, local_stage(tmp_path / "results"))
    loaded = loaded_modules(command, str(run.path), cwd=tmp_path)
    assert loaded.isdisjoint(HEAVY | {"pydantic", "submitit", "yaml", "rich", "asyncio"})


def test_a_dry_run_loads_no_torch(tmp_path: Path) -> None:
    spec = write_dataset(tmp_path / "data")
    loaded = loaded_modules("submit", str(spec), "--dry-run", cwd=tmp_path)
    assert loaded.isdisjoint(HEAVY)
    assert "rtdetr_slurm" in loaded
