"""`encryption_key`: a key that a spec or an override gives is taken out before anything else looks
at it, and never gets back in. What stays says where it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rtdetr_slurm.contract import Env
from rtdetr_slurm.encryption import HOW_TO_GIVE, read_key
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.model_check import Problem
from rtdetr_slurm.spec.experiment import FROM_ENVIRONMENT, PLACEHOLDERS, ExperimentConfig
from rtdetr_slurm.spec.fields import visit
from rtdetr_slurm.spec.overrides import MISSING
from rtdetr_slurm.yaml_source import parse_value, show

FIELD = "encryption_key"
_NO_KEY = ("", MISSING, FROM_ENVIRONMENT, *PLACEHOLDERS)
_LEGACY = (".tlt", ".etlt")


def without_key(texts: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
    """Overrides, or words of a command line, without the key that one of them gives; the key."""
    key: str | None = None
    kept = []
    for text in texts:
        name, equals, value = text.partition("=")
        if name == FIELD and equals and _is_key(given := _text_of(value)):
            key, text = given, f"{FIELD}={FROM_ENVIRONMENT}"
        kept.append(text)
    return tuple(kept), key


def data_without_key(data: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """A spec's data without the key that it gives; the key."""
    given = data.get(FIELD)
    if not _is_key(given):
        return data, None
    return {**data, FIELD: FROM_ENVIRONMENT}, given


def find_key(given: str | None, spec: str, environ: Mapping[str, str]) -> str | None:
    """What model files are encrypted with; None: they are not.

    Args:
        given: by the spec, with which it counts more than what the environment has.
        spec: encryption_key, as it is without a key.

    Raises:
        RequestError: the environment is to have it, and does not; or as read_key.
    """
    value = given or environ.get(Env.ENCRYPTION_KEY)
    if value:
        return read_key(value)
    if spec == FROM_ENVIRONMENT:
        raise RequestError(
            f"{FIELD} is {FROM_ENVIRONMENT}: model files are to be encrypted, and there is no key; "
            f"give it {HOW_TO_GIVE}"
        )
    return None


def key_is_no_reference(experiment: ExperimentConfig, _action: str) -> Iterator[Problem]:
    """What a reference leads to is in the spec twice, and can be taken out only once."""
    if experiment.encryption_key not in _NO_KEY:
        yield Problem(
            (FIELD,),
            f"found a reference; allowed: the key itself, {FROM_ENVIRONMENT}, or file:///… with it",
        )


def legacy_files_are_named(experiment: ExperimentConfig, action: str) -> Iterator[Problem]:
    """TAO's encrypted files of before its version 5.0 cannot be read, whatever the key."""
    for ref, value in visit(experiment):
        reads = ref.extra("x-path") == "read" and action in ref.used_by
        if reads and isinstance(value, str) and value.lower().endswith(_LEGACY):
            yield Problem(
                ref.path,
                f"found {show(value)}; TAO's encrypted files ({', '.join(_LEGACY)}) cannot be read "
                "here, whatever the key; allowed: what the TAO that wrote it makes of it without "
                "encryption (.pth, .onnx)",
            )


def _is_key(value: Any) -> bool:
    return isinstance(value, str) and value not in _NO_KEY and "${" not in value


def _text_of(value: str) -> Any:
    """What is written behind `encryption_key=`: as YAML has it where that is text or nothing."""
    try:
        parsed = parse_value(value) if value.strip() else ""
    except RequestError:
        return value
    return parsed if isinstance(parsed, str) or parsed is None else value
