"""`rtdetr-slurm validate`: check a spec without submitting it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.actions import EngineOf, own_engine
from rtdetr_slurm.cli import terminal
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.errors import RequestError, SiteError, UserError

if TYPE_CHECKING:
    from rtdetr_slurm.spec import LoadedSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", type=Path, metavar="SPEC", help="the spec, a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields to set over it")
    parser.add_argument("--action", metavar="ACTION", help="what the spec is for")
    parser.add_argument("--site", metavar="FILE", help="site profile; 'local' is this machine")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    try:
        loaded, engine_of, notes = loaded_request(args)
        notes += _notes_on_search(loaded, engine_of)
    except RequestError as error:
        if not args.json:
            raise
        terminal.document({"valid": False, "problems": _problems(error)})
        return ExitCode.BAD_REQUEST
    if args.json:
        report = {
            "valid": True,
            "spec": str(args.spec),
            "action": loaded.action,
            "actions": loaded.actions,
            "notes": notes,
        }
        terminal.document(report)
        return ExitCode.OK
    plural = "s" if len(loaded.actions) > 1 else ""
    terminal.out(f"{args.spec}: valid for action{plural} {', '.join(loaded.actions)}")
    for note in notes:
        terminal.note(f"note: {note}")
    return ExitCode.OK


def loaded_request(args: argparse.Namespace) -> tuple[LoadedSpec, EngineOf, list[str]]:
    """The spec that the arguments name, checked, whose images it would run in, and what the user
    should know about it.

    Raises:
        RequestError: the spec is wrong.
        SiteError: the profile is wrong.
    """
    from rtdetr_slurm.spec import load_spec

    notes: list[str] = []

    def carried(reference: str) -> Mapping[str, Any]:
        """The spec of job.parent, where that can be found from here."""
        from rtdetr_slurm.site.discover import find_site
        from rtdetr_slurm.submission.parent import parent_spec

        try:
            return parent_spec(reference, find_site(args.site, os.environ))
        except UserError as error:
            why = str(error) if isinstance(error, RequestError) else "job.parent: no site is known"
            notes.append(f"{why}; so what carries over from {reference} is left to submit")
            return {}

    engine_of = _engine_of(args)
    loaded = load_spec(
        args.spec, args.overrides, args.action, parent_spec=carried, engine_of=engine_of
    )
    return loaded, engine_of, [*notes, *loaded.notes]


def _notes_on_search(loaded: LoadedSpec, engine_of: EngineOf) -> list[str]:
    """What is searched where training is a search.

    Raises:
        RequestError: it is to be one, and cannot be.
    """
    from rtdetr_slurm.automl.policy import NoSearch, may_search, space_of

    if not may_search(loaded):
        return []
    try:
        space = space_of(loaded, loaded.resolved(), engine_of)
    except NoSearch as why:
        if loaded.automl.policy == "on":
            raise
        return [f"plain training: {why}"]
    fields = ", ".join(parameter.field for parameter in space.parameters)
    by_default = " on a cluster" if loaded.automl.policy is None else ""
    return [f"AutoML searches{by_default}: {fields}"]


def _engine_of(args: argparse.Namespace) -> EngineOf:
    """Whose images the site's roles have, which decides on what a spec may ask.

    Raises:
        RequestError: the spec is wrong, whatever they are, and the profile is wrong, too.
        SiteError: the profile is wrong.
    """
    from rtdetr_slurm.site.discover import NoProfile, find_site
    from rtdetr_slurm.spec import check_for_any_image

    try:
        return find_site(args.site, os.environ).site.engine_of
    except NoProfile:
        return own_engine
    except SiteError:
        check_for_any_image(args.spec, args.overrides, args.action)
        raise


def _problems(error: RequestError) -> list[dict[str, Any]]:
    from rtdetr_slurm.model_check import InvalidInput

    if not isinstance(error, InvalidInput):
        return [{"message": str(error)}]
    return [
        {
            "file": problem.file,
            "line": problem.position and problem.position.line,
            "column": problem.position and problem.position.column,
            "override": problem.override,
            "field": problem.field,
            "message": problem.message,
        }
        for problem in error.problems
    ]
