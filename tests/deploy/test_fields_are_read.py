"""What the fields declare against what the actions do: those they honour they read, and no other,
of those that deploy a detector."""

from __future__ import annotations

import pytest
from engine_support import Workspace
from field_reads import Reads, check, trained, workspace  # noqa: F401

from rtdetr_slurm.actions import ACTIONS, DEPLOY

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


@pytest.mark.parametrize("name", [one for one, row in ACTIONS.items() if row.program == DEPLOY])
def test_an_action_reads_the_fields_it_honours(
    name: str, workspace: Workspace, trained: Reads
) -> None:
    check(name, workspace, trained)
