"""Where a rank stands, by what its faulthandler writes."""

from __future__ import annotations

import pytest

from rtdetr_slurm.engine.process.stacks import place_of

STACKS = """\
Thread 0x00007f10 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 331 in wait

Thread 0x00007f11 (most recent call first):
  File "/opt/lib/python3.11/site-packages/torch/distributed/distributed_c10d.py", line 2806 in all_reduce
  File "/opt/lib/python3.11/site-packages/rtdetr_slurm/engine/process/distributed.py", line 120 in sum_over_ranks
  File "/opt/lib/python3.11/site-packages/rtdetr_slurm/engine/training/loop.py", line 131 in train_steps
  File "<frozen runpy>", line 198 in _run_module_as_main
"""  # noqa: E501


def test_of_the_main_thread_the_innermost_frame_that_is_ours() -> None:
    place = place_of(STACKS)
    assert place.waits
    assert place.text == (
        "/opt/lib/python3.11/site-packages/rtdetr_slurm/engine/process/distributed.py:120 "
        "(sum_over_ranks), in /opt/lib/python3.11/site-packages/torch/distributed/"
        "distributed_c10d.py:2806 (all_reduce)"
    )


def test_a_users_own_code_is_named() -> None:
    own = STACKS.replace("/opt/lib/python3.11/site-packages/torch/distributed/", "/home/me/")
    own = own.replace("line 2806 in all_reduce", "line 7 in load")
    assert place_of(own).text == "/home/me/distributed_c10d.py:7 (load)"
    assert not place_of(own).waits


@pytest.mark.parametrize("text", ["", "nonsense", "Thread 0x1 (most recent call first):\n"])
def test_no_stack(text: str) -> None:
    assert place_of(text).text == ""
