"""`rtdetr-slurm submit`: spec → plan → run folder → queue."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtdetr_slurm import __version__
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.make import frozen_spec, make_plan
from rtdetr_slurm.plan.model import Plan
from rtdetr_slurm.plan.render import render_plan
from rtdetr_slurm.runs.images import glance, record_image
from rtdetr_slurm.runs.run import Run, create_run, new_run_id
from rtdetr_slurm.site.discover import FoundSite, find_site

if TYPE_CHECKING:
    from rtdetr_slurm.spec import LoadedSpec

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", type=Path, metavar="SPEC", help="the experiment YAML")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="values that win over the spec's"
    )
    parser.add_argument("--action", help="what to do; else job.action, else what the spec is for")
    parser.add_argument("--site", metavar="FILE", help="site profile; 'local' is this machine")
    parser.add_argument("--name", help="name of the job in the queue and in `status`")
    parser.add_argument(
        "--dry-run", action="store_true", help="print plan and batch scripts, touch nothing"
    )
    watch = parser.add_mutually_exclusive_group()
    watch.add_argument("--wait", action="store_true", help="wait for the end; Ctrl-C detaches")
    watch.add_argument("--follow", action="store_true", help="show the log too; Ctrl-C detaches")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.data.coco import check_sources
    from rtdetr_slurm.spec import load_spec, refuse_unavailable

    if args.name is not None and not _NAME.fullmatch(args.name):
        raise RequestError(f"--name {args.name!r}: allowed are 1 to 64 of A-Z a-z 0-9 . _ -")
    loaded = load_spec(args.spec, args.overrides, args.action)
    refuse_unavailable(loaded)
    check_sources(loaded.experiment, loaded.action)
    found = find_site(args.site, os.environ)
    run_dir = Path(found.site.run_root).absolute() / new_run_id(loaded.action)
    spec = frozen_spec(loaded, run_dir=run_dir, cwd=Path.cwd())
    plan = make_plan(loaded, spec, found.site, run_dir=run_dir)
    plan = replace(plan, notes=(*found.notes, *plan.notes))
    if args.json or not args.dry_run:
        for note in plan.notes:
            print(note, file=sys.stderr)
    if args.dry_run:
        return _dry_run(args, plan, run_dir, found, args.name or loaded.job.name or None)
    created = _freeze(args, loaded, spec, plan, run_dir, found)
    return _submit(args, created)


def _dry_run(
    args: argparse.Namespace, plan: Plan, run_dir: Path, found: FoundSite, name: str | None
) -> int:
    from rtdetr_slurm.slurm.submit import scripts

    for stage in plan.stages:
        if stage.container is not None:
            glance(Path(stage.container.image.path))
    texts = scripts(plan, run_dir, name)
    if args.json:
        document = {
            "run_dir": str(run_dir),
            "site": found.site.name,
            "plan": plan.to_json(),
            "scripts": texts,
        }
        print(json.dumps(document, indent=2))
        return ExitCode.OK
    print(render_plan(plan, run_dir=str(run_dir), site_name=found.site.name))
    for stage_name, text in texts.items():
        print(f"\nsbatch script of stage {stage_name}:\n\n{text}", end="")
    return ExitCode.OK


def _freeze(
    args: argparse.Namespace,
    loaded: LoadedSpec,
    spec: dict[str, Any],
    plan: Plan,
    run_dir: Path,
    found: FoundSite,
) -> Run:
    """Make the run folder: everything that was decided, before anything is queued."""
    from rtdetr_slurm.spec import to_yaml

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    images = {}
    for stage in plan.stages:
        if stage.container is not None:
            image, apptainer = stage.container.image, stage.container.apptainer
            record = record_image(
                Path(image.path), image.sha256, apptainer, cache / "rtdetr-slurm" / "images.json"
            )
            images[image.path] = record.to_json()
    manifest = {
        "name": args.name or loaded.job.name or None,
        "action": loaded.action,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "user": _user(),
        "parent": None,
        "package_version": __version__,
        "spec": {"source": str(args.spec.absolute()), "overrides": args.overrides},
        "images": images,
        "site": found.site.model_dump(mode="json"),
        "site_sources": [str(path) for path in found.sources],
        "plan": plan.to_json(),
    }
    return create_run(run_dir, manifest, to_yaml(spec))


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # an id without a passwd entry, as in some containers
        return str(os.getuid())


def _submit(args: argparse.Namespace, created: Run) -> int:
    from rtdetr_slurm.slurm.submit import submit_run

    jobs = submit_run(created)
    watched = args.wait or args.follow
    if not watched and args.json:
        stages = [{"name": name, "job_id": job_id} for name, job_id in jobs.items()]
        document = {"run_id": created.id, "run_dir": str(created.path), "stages": stages}
        print(json.dumps(document, indent=2))
        return ExitCode.OK
    ids = ", ".join(f"{name} {job_id}" for name, job_id in jobs.items())
    print(f"submitted {created.id} (job: {ids})", file=sys.stderr)
    if not watched:
        print(created.path)
        hint = f"rtdetr-slurm status {created.path}"
        print(f"next: {hint}   (or logs, cancel)", file=sys.stderr)
        return ExitCode.OK
    from rtdetr_slurm.cli.watching import watch

    return watch(created, show_log=args.follow, as_json=args.json)
