"""What a rank is doing, and how long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rtdetr_slurm.engine.process.phases import Phase, Phases


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_time_belongs_to_the_innermost_phase(clock: Clock) -> None:
    phases = Phases(clock)
    clock.now += 5
    with phases.during(Phase.STEPPING, epoch=2, step=3, steps=10):
        clock.now += 1
        phases.stepped()
        with phases.during(Phase.SAVING):
            assert (phases.now.phase, phases.now.epoch, phases.now.step) == (Phase.SAVING, 2, 0)
            clock.now += 7
            assert phases.seconds[Phase.SAVING] == 7
        clock.now += 2
        assert (phases.now.step, phases.now.steps, phases.now.since) == (4, 10, 105)
    phases.enter(Phase.OTHER)
    clock.now += 4
    assert phases.now.epoch is None
    assert dict(phases.seconds) == {
        Phase.LOADING: 5,
        Phase.STEPPING: 3,
        Phase.VALIDATING: 0,
        Phase.INFERRING: 0,
        Phase.SAVING: 7,
        Phase.OTHER: 4,
    }
    assert phases.steps_done == 1


def test_a_phase_that_breaks_off_is_over(clock: Clock) -> None:
    phases = Phases(clock)
    with pytest.raises(ValueError, match="broken"), phases.during(Phase.VALIDATING):
        raise ValueError("broken")
    assert phases.now.phase is Phase.LOADING


def test_the_waiting_for_batches_is_counted_apart(clock: Clock) -> None:
    def loader() -> Iterator[int]:
        for number in range(3):
            clock.now += 2
            yield number
        clock.now += 1  # that there are no more also takes its time

    phases = Phases(clock)
    with phases.during(Phase.VALIDATING, steps=3):
        for _ in phases.batches(loader()):
            clock.now += 10
            phases.stepped()
    assert phases.waited[Phase.VALIDATING] == 7
    assert phases.seconds[Phase.VALIDATING] == 37
    assert phases.waited[Phase.STEPPING] == 0


def test_observers_are_told_of_each_step_and_change(clock: Clock) -> None:
    phases, told = Phases(clock), list[tuple[Phase, int]]()
    phases.observers.append(lambda seen: told.append((seen.now.phase, seen.now.step)))
    with phases.during(Phase.STEPPING, steps=2):
        phases.stepped()
        phases.stepped()
    assert told == [
        (Phase.STEPPING, 0),
        (Phase.STEPPING, 1),
        (Phase.STEPPING, 2),
        (Phase.LOADING, 0),
    ]
