"""The values of a site profile, each kind with what it may hold."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, TypeAdapter

from rtdetr_slurm.contract import COMPUTE_CAPABILITY, Env
from rtdetr_slurm.model_check import Matches, number_as_text
from rtdetr_slurm.slurm import names
from rtdetr_slurm.slurm.environment import is_secret
from rtdetr_slurm.slurm.times import minutes_of_field

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LAUNCH_ENV = frozenset(value for name, value in vars(Env).items() if name.isupper()) | {
    *("LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK"),
    *("PYTHONNOUSERSITE", "PYTHONUNBUFFERED"),
}


def _one_line(value: str) -> str:
    if not value.strip() or names.has_control_character(value):
        raise ValueError("one line of text")
    return value


def _env_name(value: str) -> str:
    if not _ENV_NAME.fullmatch(value):
        raise ValueError("the name of an environment variable")
    if value in _LAUNCH_ENV:
        launch = ", ".join(sorted(_LAUNCH_ENV))
        raise ValueError(f"any name but those that the launch itself sets: {launch}")
    return value


def _plain_env_name(value: str) -> str:
    if is_secret(value):
        raise ValueError(
            f"any name but a secret's; write secrets: [{value}], and set it where you submit"
        )
    return _env_name(value)


def _env_value(value: str) -> str:
    if any(character in value for character in "\n\r\0"):
        raise ValueError("text without line breaks and NUL")
    return value


def sha256_digits(value: str) -> str:
    """A digest without its prefix; raises ValueError for what is none."""
    digest = value.removeprefix("sha256:")
    if not _SHA256.fullmatch(digest):
        raise ValueError("64 hexadecimal digits, with or without 'sha256:' before them")
    return digest


def image_of(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


def bind_of(value: Any) -> Any:
    """`src`, `src:dst` and `src:dst:ro|rw`, Apptainer's short forms, as a mapping."""
    if not isinstance(value, str):
        return value
    parts = value.split(":")
    if len(parts) > 3 or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
        raise ValueError(
            "'source', 'source:target' or 'source:target:ro'; for a path with ':' the long form "
            "{source: …, target: …, read_only: true}"
        )
    return {
        "source": parts[0],
        "target": parts[1] if len(parts) > 1 else None,
        "read_only": len(parts) == 3 and parts[2] == "ro",
    }


def _env_item(value: Any) -> Any:
    if isinstance(value, str):
        return {value: None}
    if isinstance(value, dict) and len(value) == 1:
        return value
    raise ValueError("the name of an environment variable, or one 'NAME: value'")


def env_of(value: Any) -> Any:
    """A list of names and one-key maps as one mapping; a null takes back farther files' names."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    if not isinstance(value, list):
        raise ValueError("a list of names, or 'NAME: value' lines")
    merged: dict[str, str | None] = {}
    for item in _ENV_ITEMS.validate_python(value, strict=True):
        if twice := merged.keys() & item.keys():
            raise ValueError(f"each name once; {twice.pop()} is given twice")
        merged |= item
    return merged


Line = Annotated[str, AfterValidator(_one_line)]
Name = Annotated[str, Matches(*names.NAME)]
Names = Annotated[str, Matches(*names.NAMES)]
Constraint = Annotated[str, Matches(*names.CONSTRAINT)]
GpuType = Annotated[str, Matches(*names.GPU_TYPE)]
TargetName = Annotated[str, Matches(*names.TARGET)]
ComputeCapability = Annotated[str, BeforeValidator(number_as_text), Matches(*COMPUTE_CAPABILITY)]
EnvName = Annotated[str, AfterValidator(_env_name)]
EnvValue = Annotated[str, AfterValidator(_env_value)]
PlainEnvName = Annotated[str, AfterValidator(_plain_env_name)]
EnvVariables = dict[PlainEnvName, EnvValue | None]
_ENV_ITEMS = TypeAdapter(list[Annotated[EnvVariables, BeforeValidator(_env_item)]])
Minutes = Annotated[int, BeforeValidator(minutes_of_field)]
Sha256 = Annotated[str, AfterValidator(sha256_digits)]
