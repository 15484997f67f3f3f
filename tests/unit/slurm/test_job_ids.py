"""Job ids as Slurm writes them."""

from __future__ import annotations

import pytest

from rtdetr_slurm.slurm.job_ids import (
    array_of,
    array_task,
    expand,
    is_job_id,
    numbers_of,
    own_job_id,
)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("123", ["123"]),
        ("123_4", ["123_4"]),
        ("123_[4-6%2]", ["123_4", "123_5", "123_6"]),
        ("123_[0,3,8-12:2]", ["123_0", "123_3", "123_8", "123_10", "123_12"]),
        ("123_[7]", ["123_7"]),
        ("123.batch", []),
        ("123_[x]", []),
        ("--user=root", []),
        ("", []),
    ],
)
def test_every_job_that_an_id_stands_for(text: str, ids: list[str]) -> None:
    assert expand(text) == ids


def test_a_task_is_told_from_its_array() -> None:
    task = {"SLURM_JOB_ID": "20", "SLURM_ARRAY_JOB_ID": "20", "SLURM_ARRAY_TASK_ID": "3"}
    assert (own_job_id(task), array_task(task)) == ("20_3", 3)
    assert (own_job_id({"SLURM_JOB_ID": "20"}), array_task({})) == ("20", None)
    assert (array_of("20_3"), array_of("20")) == ("20", "20")
    assert (numbers_of("20_3"), numbers_of("20")) == ((20, 3), (20, 0))
    with pytest.raises(KeyError):
        own_job_id({})


@pytest.mark.parametrize("text", ["1", "1_0", "99999_12"])
def test_what_addresses_one_job(text: str) -> None:
    assert is_job_id(text)


@pytest.mark.parametrize("text", ["", "1_", "1_[2-3]", "1;cluster", "-1", "1 2", "--signal=KILL"])
def test_what_does_not(text: str) -> None:
    assert not is_job_id(text)
