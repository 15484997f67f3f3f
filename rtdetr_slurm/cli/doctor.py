"""`rtdetr-slurm doctor`: whether this cluster is as jobs need it, and what to do where not."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.doctor.finding import Finding, Outcome, failure, report, worst
from rtdetr_slurm.errors import SiteError

if TYPE_CHECKING:
    from rtdetr_slurm.site.discover import FoundSite


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--site", metavar="FILE", help="site profile; 'local' is this machine")
    parser.add_argument(
        "--partition", metavar="P", help="look at this partition instead of those of the profile"
    )
    parser.add_argument("--no-job", action="store_true", help="ask the login node and Slurm only")
    parser.add_argument(
        "--wait",
        type=minutes,
        default=10.0,
        metavar="MINUTES",
        help="how long a probe job may wait in the queue (default: 10)",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="write settings that an all-reduce needed into your profile, under env",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.doctor.examine import examine_here
    from rtdetr_slurm.doctor.login_checks import check_login
    from rtdetr_slurm.site.discover import find_site

    found = find_site(args.site, os.environ)
    lines = _Lines(show=not args.json)
    lines.add(check_login(found, os.environ, terminal.note))
    settings: dict[str, str] = {}
    if found.site.scheduler == "slurm":
        settings = _ask_cluster(args, found, lines)
    elif not args.no_job:
        lines.add(examine_here(found, lines.findings).findings)
    kept = None
    if args.keep and settings:
        try:
            kept = _keep(found, settings)
        except SiteError as error:
            said, _, by_hand = str(error).rpartition("; ")
            lines.add([failure("site.keep", said, by_hand)])
    if args.json:
        facts = {
            "site": found.site.name,
            "profiles": [str(path) for path in found.sources],
            "settings": settings,
            "kept_in": kept and str(kept),
        }
        terminal.document(report(lines.findings, **facts))
    return lines.exit_code


def _ask_cluster(args: argparse.Namespace, found: FoundSite, lines: _Lines) -> dict[str, str]:
    """Ask Slurm, and have jobs look; returns the settings that their ranks needed."""
    from rtdetr_slurm.doctor.examine import (
        WHERE_SLURM_ANSWERS,
        ask_slurm,
        examine_by_job,
        examine_slurm,
    )

    try:
        cluster = ask_slurm()
    except SiteError as error:
        lines.add([failure("slurm.version", str(error), WHERE_SLURM_ANSWERS)])
        return {}
    lines.add(examine_slurm(found, cluster, args.partition))
    if args.no_job:
        return {}
    try:
        examined = examine_by_job(
            found, cluster, args.partition, 60 * args.wait, lines.findings, terminal.note
        )
    except SiteError as error:  # Slurm has fallen silent
        lines.add([failure("probe.job", str(error), "try again once `squeue` answers")])
        return {}
    lines.add(examined.findings)
    return examined.settings


def _keep(found: FoundSite, settings: dict[str, str]) -> Path:
    """Write the settings into the user's own profile, and say so."""
    from rtdetr_slurm.site.discover import own_profile
    from rtdetr_slurm.site.keep import keep_env

    path = own_profile(found, os.environ)
    copy = keep_env(path, settings)
    pairs = " ".join(f"{name}={value}" for name, value in settings.items())
    was = f"; as it was: {copy}" if copy is not None else ""
    terminal.note(f"kept {pairs} under env in {path}{was}")
    return path


def minutes(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 7 * 24 * 60:
        raise ValueError
    return number


class _Lines:
    """The findings, each printed as soon as it is there."""

    def __init__(self, *, show: bool) -> None:
        self.findings: list[Finding] = []
        self._show = show

    def add(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.findings.append(finding)
            if self._show:
                terminal.out(line(finding))

    @property
    def exit_code(self) -> int:
        bad = worst(self.findings) is Outcome.FAILURE
        return ExitCode.SITE_CANNOT if bad else ExitCode.OK


def line(finding: Finding) -> str:
    """One line: outcome, check, what was found, and what to do."""
    remedy = f"  → {finding.remedy}" if finding.remedy else ""
    where = "" if finding.where == "login" else f"[{finding.where}] "
    found = "; ".join(finding.found.splitlines())  # Slurm's commands have errors of several lines
    return f"{finding.outcome.value:<11} {finding.id:<19} {where}{found}{remedy}"
