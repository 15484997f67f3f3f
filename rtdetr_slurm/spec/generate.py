"""`python -m rtdetr_slurm.spec.generate`: writes what follows from the models into the repository.

schemas/<action>.schema.json, schemas/manifest.json, specs/<action>.yaml and docs/spec.md. With
`--check` nothing is written; files that differ are named and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.spec.docs import spec_markdown
from rtdetr_slurm.spec.schema import action_schema, manifest
from rtdetr_slurm.spec.template import template_yaml

REPOSITORY = Path(__file__).parents[2]


def generated() -> dict[str, str]:
    """Path in the repository to content, for every generated file."""
    files = {"schemas/manifest.json": _json(manifest()), "docs/spec.md": spec_markdown()}
    for action in ACTIONS:
        name = f"{action}.schema.json"
        files[f"schemas/{name}"] = _json(action_schema(action))
        files[f"specs/{action}.yaml"] = template_yaml(action, f"../schemas/{name}")
    return files


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rtdetr_slurm.spec.generate")
    parser.add_argument("--check", action="store_true", help="only say which files are stale")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="the repository")
    args = parser.parse_args(argv)
    files = generated()
    stale = [name for name, text in files.items() if _read(args.root / name) != text]
    for name in stale:
        if args.check:
            print(f"{name} is stale: run python -m rtdetr_slurm.spec.generate", file=sys.stderr)
        else:
            (args.root / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(args.root / name, files[name])
            print(name)
    return int(args.check and bool(stale))


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
