"""Who hears of a run: `job.notify` → what each job asks of Slurm, or the site's command. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.model import Mail, Stage

if TYPE_CHECKING:
    from rtdetr_slurm.site.profile import Site

COMMAND = "command"
"""Value of job.notify that means the site's notify_command."""


def with_mail(stages: Sequence[Stage], notify: str, site: Site) -> tuple[Stage, ...]:
    """The stages with the mail that each has Slurm send, where `notify` is an address: of the first
    one's start, of every failure, and of the last one's end.

    Raises:
        RequestError: there is no Slurm to send it.
    """
    if notify in ("", COMMAND):
        return tuple(stages)
    if site.scheduler != "slurm":
        raise RequestError(
            f"job.notify: found {notify}; mail is sent by Slurm, and site '{site.name}' has none: "
            f"leave it out, or write {COMMAND} for the notify_command of the profile"
        )
    last = len(stages) - 1
    return tuple(
        _mailing(stage, notify, first=number == 0, last=number == last)
        for number, stage in enumerate(stages)
    )


def _mailing(stage: Stage, user: str, *, first: bool, last: bool) -> Stage:
    types = ("BEGIN",) * first + ("END",) * last + ("FAIL",)
    return replace(stage, resources=replace(stage.resources, mail=Mail(user, types)))


def command_of(notify: str, site: Site) -> tuple[str, ...]:
    """What is called where `notify` asks for the site's command; empty: nothing.

    Raises:
        SiteError: the site has none.
    """
    if notify != COMMAND:
        return ()
    if not site.notify_command:
        raise SiteError(
            f"job.notify: found {COMMAND}, and site '{site.name}' has no notify_command; write an "
            "e-mail address, or have the profile name one (docs/site.md)"
        )
    return tuple(site.notify_command)
