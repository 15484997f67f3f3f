"""One brings an object, the others wait; a dead one is taken over, with what it has done."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rtdetr_slurm.errors import NewerVersion, RequestError
from rtdetr_slurm.staging import claims
from rtdetr_slurm.staging.claims import Claim, Lost, acquire, latest_claim


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(claims, "POLL_S", 0.005)
    return tmp_path


def acquired(entry: Path) -> Claim:
    claim = acquire(entry, lambda: False, lambda owner: pytest.fail(f"waits for {owner}"))
    assert claim is not None
    return claim


def elsewhere(entry: Path) -> Path:
    """The latest claim becomes one of another machine."""
    latest = latest_claim(entry)
    assert latest is not None
    path = entry / "claims" / str(latest[0])
    path.write_text(json.dumps(asdict(replace(latest[1], host="other"))))
    return path


def test_the_first_has_it_and_the_next_waits(entry: Path) -> None:
    claim = acquired(entry)
    waited: list[str] = []
    assert acquire(entry, lambda: len(waited) == 3, waited.append) is None
    assert f"(process {os.getpid()})" in waited[0]
    claim.leave()
    assert acquired(entry).work().name == "work-2"


def test_what_was_left_is_gone_on_with(entry: Path) -> None:
    first = acquired(entry)
    (first.work() / "piece").write_text("x")
    first.leave()
    second = acquired(entry)
    assert (second.work() / "piece").read_text() == "x"
    assert [path.name for path in entry.glob("work-*")] == ["work-2"]
    with pytest.raises(Lost):
        first.check()
    with pytest.raises(Lost):
        first.work()
    second.check()
    second.leave()


def test_a_process_of_this_machine_that_is_gone_is_not_waited_for(entry: Path) -> None:
    acquired(entry).leave()
    path = entry / "claims" / "1"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "working", "pid": 2**22}))
    acquired(entry).leave()


def test_who_beats_no_more_is_taken_over(entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "DEAD_S", 0.05)
    acquired(entry).leave()
    path = elsewhere(entry)
    record = json.loads(path.read_text()) | {"state": "working"}
    beats = 0

    def beat(owner: str) -> None:
        nonlocal beats
        if beats < 20:  # longer than a dead one is waited for
            beats += 1
            path.write_text(json.dumps(record | {"beat": beats}))

    path.write_text(json.dumps(record))
    claim = acquire(entry, lambda: False, beat)
    assert claim is not None
    assert beats == 20
    claim.check()
    claim.leave()


def test_an_owner_beats(entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_S", 0.005)
    claim = acquired(entry)
    waited: list[str] = []

    def beaten() -> bool:
        latest = latest_claim(entry)
        return latest is not None and latest[1].beat > 2

    assert acquire(entry, beaten, waited.append) is None
    claim.leave()


def test_who_waited_for_a_refusal_is_refused_and_the_next_tries(entry: Path) -> None:
    claim = acquired(entry)
    with pytest.raises(RequestError, match="it is a bomb"):
        acquire(entry, lambda: False, lambda owner: claim.leave("refused", "it is a bomb"))
    acquired(entry).leave()


def test_a_claim_of_a_newer_version(entry: Path) -> None:
    acquired(entry).leave()
    path = entry / "claims" / "1"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    with pytest.raises(NewerVersion):
        acquired(entry)
