"""Slurm's commands fail, hang and answer nonsense at random: nothing is lost, nothing sent twice.

Every scenario is a number; RTDETR_TEST_FAULTS=17 in the environment runs that one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random

import pytest

from rtdetr_slurm.errors import UserError
from rtdetr_slurm.runs.run import Run, new_run_id
from rtdetr_slurm.slurm import commands
from rtdetr_slurm.submission import reconcile
from rtdetr_slurm.submission.cancel import cancel_run
from rtdetr_slurm.submission.resume import resume_run
from rtdetr_slurm.submission.submit import submit_run
from rtdetr_slurm.submission.survey import survey_run

from .harness import sent, slurm
from .harness.cli import held_queue
from .harness.faults import BadDay
from .harness.tiny import tiny_run

pytestmark = pytest.mark.cluster

SCENARIOS, AT_ONCE, USERS = 200, 50, 3
HANGS = 0.15
COMMAND_LIMIT_S, STEP_LIMIT_S = 1.0, 25.0
_ONLY = os.environ.get("RTDETR_TEST_FAULTS")
SEEDS = (
    [range(int(_ONLY), int(_ONLY) + 1)]
    if _ONLY
    else [range(first, first + AT_ONCE) for first in range(0, SCENARIOS, AT_ONCE)]
)


@pytest.fixture(scope="module")
def held(cluster: slurm.Slurm) -> Iterator[slurm.Slurm]:
    with held_queue(cluster):
        yield cluster


@pytest.mark.parametrize("seeds", SEEDS, ids=str)
def test_nothing_is_lost_and_nothing_sent_twice(
    seeds: range, held: slurm.Slurm, tmp_path: Path
) -> None:
    """Several users at once: most of the time is spent in commands that hang."""
    shares = [seeds[number::USERS] for number in range(USERS)]
    with ProcessPoolExecutor(USERS, get_context("fork")) as users:
        played = [
            users.submit(play, share, tmp_path / f"user-{number}", held.environment())
            for number, share in enumerate(shares)
        ]
        for one in played:
            one.result()


def play(seeds: Iterable[int], folder: Path, environment: Mapping[str, str]) -> None:
    """Scenarios of one user, in a process of its own."""
    (folder / "bin").mkdir(parents=True)
    os.environ |= environment
    day = BadDay(folder / "bin")
    os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    reconcile.LOOK_EVERY_S, reconcile.LOOK_FOR_S = 0.02, 0.2
    for seed in seeds:
        run = tiny_run(folder / "runs", f"{new_run_id('train')[:-4]}{seed:04x}")
        scenario = Scenario(run, day, Random(seed))
        try:
            scenario.play()
        except BaseException as error:
            told = "\n".join(scenario.story)
            raise AssertionError(f"scenario {seed}: {error!r}\n{told}") from error


class Scenario:
    """One run on a bad day."""

    def __init__(self, run: Run, day: BadDay, rng: Random) -> None:
        self.run, self.day, self.rng = run, day, rng
        self.story: list[str] = []
        self.wanted = False
        """Whether the user was told that it is queued, and has not cancelled it since."""

    def play(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(commands, "TIMEOUT_S", COMMAND_LIMIT_S)
            patch.setattr(commands, "SBATCH_TIMEOUT_S", COMMAND_LIMIT_S)
            self.wanted = self.step("submit", lambda: submit_run(self.run))
            for _ in range(self.rng.choice((0, 1, 1, 2))):
                name = self.rng.choice(("status", "status", "cancel", "resume"))
                getattr(self, name)()
        self.day.over()
        while self.day.is_late():
            time.sleep(0.02)
        self.story.append("all is well")
        sent.check(self.run, wanted=self.wanted)
        sent.recover(self.run)
        sent.clear(self.run)

    def step(self, name: str, do: Callable[[], object]) -> bool:
        """Something that a user does: it may fail, but only with words, and in time."""
        self.day.plan(self.rng, HANGS)
        self.story.append(f"{name} {self.day.planned()}")
        began = time.monotonic()
        try:
            do()
        except UserError as error:
            self.story.append(f"{type(error).__name__}: {error}")
            return False
        finally:
            assert time.monotonic() - began < STEP_LIMIT_S
        return True

    def status(self) -> None:
        self.step("status", lambda: survey_run(self.run.path))

    def cancel(self) -> None:
        self.wanted = False
        self.step("cancel", lambda: cancel_run(self.run))

    def resume(self) -> None:
        self.wanted = self.step("resume", lambda: resume_run(self.run)) or self.wanted
