"""The fields that the user has set, which the choices follow from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rtdetr_slurm.model_check import InvalidInput, find_problems, locate
from rtdetr_slurm.spec.experiment import SpecFile
from rtdetr_slurm.spec.overrides import assemble
from rtdetr_slurm.spec.topology import complete_gpus
from rtdetr_slurm.yaml_source import YamlSource


def given_fields(overrides: Sequence[str]) -> Mapping[str, Any]:
    """What `key=value` says, nested.

    Raises:
        RequestError: a field or value that cannot be, whatever the others are.
    """
    assembled = assemble(YamlSource(Path("init"), {}, {}), overrides, "train")
    data, _ = complete_gpus(assembled.source.data)
    problems = [*assembled.problems, *find_problems(SpecFile, data)[1]]
    if problems or assembled.malformed:
        raise InvalidInput([*locate(assembled.source, problems), *assembled.malformed])
    return data
