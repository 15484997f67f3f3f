"""`rtdetr-slurm doctor`: whether this cluster is as jobs need it, and what to do where not."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.doctor.finding import Finding, Outcome, failure, report, worst
from rtdetr_slurm.errors import SiteError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--site", metavar="FILE", help="site profile; 'local' is this machine")
    parser.add_argument(
        "--partition", metavar="P", help="look at this partition instead of those of the profile"
    )
    parser.add_argument("--no-job", action="store_true", help="ask the login node only")
    parser.add_argument(
        "--wait",
        type=_minutes,
        default=10.0,
        metavar="MINUTES",
        help="how long a probe job may wait in the queue (default: 10)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.doctor.examine import (
        ask_slurm,
        examine_by_job,
        examine_here,
        examine_login,
        examine_slurm,
    )
    from rtdetr_slurm.site.discover import find_site

    found = find_site(args.site, os.environ)
    printed = _Lines(show=not args.json)
    printed.add(examine_login(found, os.environ, terminal.note))
    if found.site.scheduler == "slurm":
        try:
            cluster = ask_slurm()
        except SiteError as error:
            remedy = "run this on a login node of the cluster, with its Slurm commands on PATH"
            printed.add([failure("slurm.version", str(error), remedy)])
        else:
            printed.add(examine_slurm(found, cluster, args.partition))
            if not args.no_job:
                patience_s = 60 * args.wait
                for _, findings in examine_by_job(
                    found, cluster, args.partition, patience_s, os.environ, terminal.note
                ):
                    printed.add(findings)
    elif not args.no_job:
        for _, findings in examine_here(found, os.environ):
            printed.add(findings)
    if args.json:
        sources = [str(path) for path in found.sources]
        terminal.document(report(printed.findings, site=found.site.name, profiles=sources))
    return printed.exit_code


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 <= minutes <= 7 * 24 * 60:
        raise ValueError
    return minutes


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
    return f"{finding.outcome.value:<11} {finding.id:<19} {where}{finding.found}{remedy}"
