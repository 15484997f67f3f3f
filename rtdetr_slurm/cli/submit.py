"""`rtdetr-slurm submit`: spec → plan → run folder → queue."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.told import Told
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.encryption import restart_without_key
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.run import Run

if TYPE_CHECKING:
    from rtdetr_slurm.submission.prepare import Prepared


ROOTS = ("train", "eval", "inference", "calibration")
"""Keys of job.datasets."""


def add_request(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what is asked for."""
    parser.add_argument("spec", type=Path, metavar="SPEC", help="the experiment YAML")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="values that win over the spec's"
    )
    parser.add_argument("--action", help="what to do; else job.action, else what the spec is for")
    parser.add_argument("--site", metavar="FILE", help="site profile; 'local' is this machine")
    parser.add_argument("--name", help="name of the job in the queue and in `status`")
    parser.add_argument(
        "--then", metavar="ACTION,…", help="follow-up actions; they take the place of job.then"
    )
    parser.add_argument(
        "--parent",
        metavar="RUN[/trials/K]",
        help="the run to continue; takes the place of job.parent",
    )
    parser.add_argument(
        "--automl",
        choices=("on", "off"),
        help="search for hyper-parameters, or train once; takes the place of automl.policy",
    )
    for name in ROOTS:
        parser.add_argument(
            f"--{name}-data",
            metavar="ROOT",
            action="append" if name in ("train", "inference") else "store",
            help=f"folder or address of the data; takes the place of job.datasets.{name}",
        )
    parser.add_argument(
        "--checkpoint",
        metavar="WHICH",
        help="best, last, latest or epoch:N of what went before; takes the place of job.checkpoint",
    )


def prepared_request(args: argparse.Namespace, *, bring_all: bool = False) -> Prepared:
    """What the arguments ask for, checked.

    Args:
        bring_all: fetch and unpack all data where the site wants that of `submit`.
    """
    from rtdetr_slurm.submission.prepare import prepare  # the models of a spec

    return prepare(
        args.spec,
        args.overrides,
        action=args.action,
        site=args.site,
        name=args.name,
        then=[word.strip() for word in args.then.split(",")] if args.then else (),
        parent=args.parent,
        checkpoint=args.checkpoint,
        automl=args.automl,
        datasets={name: root for name in ROOTS if (root := vars(args)[f"{name}_data"])},
        tell=Told(),
        bring_all=bring_all,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_request(parser)
    parser.add_argument(
        "--again", action="store_true", help="also where a run that does the same is under way"
    )
    parser.add_argument(
        "--yes", action="store_true", help="begin a search that nobody has asked for unasked"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print plan and batch scripts, touch nothing"
    )
    watch = parser.add_mutually_exclusive_group()
    watch.add_argument("--wait", action="store_true", help="wait for the end; Ctrl-C detaches")
    watch.add_argument("--follow", action="store_true", help="show the log too; Ctrl-C detaches")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.submission.prepare import freeze, why_refused

    _hide_key()
    prepared = prepared_request(args, bring_all=not args.dry_run)
    if args.json or not args.dry_run:
        for note in prepared.plan.notes:
            terminal.note(note)
        for line in _search_lines(prepared):
            terminal.note(line)
    if args.dry_run:
        if not args.again and (reason := why_refused(prepared, complete=False)):
            terminal.note(f"submit would refuse this: {reason}")
        return _dry_run(prepared, as_json=args.json)
    if _has_search_by_default(prepared) and not args.yes:
        _ask(args)
    return _submit(args, freeze(prepared, terminal.note, again=args.again), prepared.loaded.key)


def _dry_run(prepared: Prepared, *, as_json: bool) -> int:
    from rtdetr_slurm.plan.render import render_plan
    from rtdetr_slurm.submission.backends import scripts

    plan, run_dir, site = prepared.plan, prepared.run_dir, prepared.site.site.name
    texts = scripts(plan, run_dir, prepared.name)
    if as_json:
        document = {
            "run_dir": str(run_dir),
            "site": site,
            "plan": plan.to_json(),
            "trials": [*prepared.draws],
            "scripts": texts,
        }
        terminal.document(document)
        return ExitCode.OK
    terminal.out_lines(render_plan(plan, run_dir=str(run_dir), site_name=site))
    if lines := _search_lines(prepared):
        terminal.out_lines("\n" + "\n".join(lines))
    for stage_name, text in texts.items():
        terminal.out_lines(f"\nsbatch script of stage {stage_name}:\n\n{text}")
    return ExitCode.OK


def _search_lines(prepared: Prepared) -> list[str]:
    """What a search is about to do; nothing where there is none."""
    from rtdetr_slurm.automl.describe import search_text

    stage = prepared.plan.searching
    return [] if stage is None else [*search_text(stage, prepared.draws)]


def _has_search_by_default(prepared: Prepared) -> bool:
    asked = prepared.asked
    return asked.searching is not None and not asked.explicit


def _ask(args: argparse.Namespace) -> None:
    """Whether a search is meant that nobody has asked for, where there is somebody to ask.

    Raises:
        RequestError: it is not.
    """
    if args.json or not terminal.is_answered():
        terminal.note("AutoML is the default; --automl off trains once")
    elif not terminal.agreed("Begin this search?"):
        raise RequestError(
            "nothing was submitted; --automl off trains once, and --automl on or --yes does not ask"
        )


def _hide_key() -> None:
    """This may wait for the end of the run, and everybody can read its command line meanwhile."""
    from rtdetr_slurm.spec.keys import without_key

    words, key = without_key(sys.argv[1:])
    if key is not None:
        restart_without_key(words, key)


def _submit(args: argparse.Namespace, created: Run, key: str | None) -> int:
    from rtdetr_slurm.submission.submit import submit_run

    jobs = submit_run(created, key=key, again=args.again)
    watched = args.wait or args.follow
    if not watched and args.json:
        stages = [{"name": name, "job_id": job_id} for name, job_id in jobs.items()]
        document = {"run_id": created.id, "run_dir": str(created.path), "stages": stages}
        terminal.document(document)
        return ExitCode.OK
    ids = ", ".join(f"{name} {job_id}" for name, job_id in jobs.items())
    terminal.note(f"submitted {created.id} (job: {ids})")
    if not watched:
        terminal.out(created.path)
        hint = f"rtdetr-slurm status {created.path}"
        terminal.note(f"next: {hint}   (or logs, cancel)")
        return ExitCode.OK
    from rtdetr_slurm.cli.watching import watch

    return watch(created, show_log=args.follow, as_json=args.json)
