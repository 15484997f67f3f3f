"""Values that reach a spec by another way than its sections: `key=value` on the command line,
dotted keys and TAO's short names.

All of them end as an entry in the nested data, which knows where it came from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rtdetr_slurm.actions import ACTIONS, deploy_action
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.model_check import LocatedProblem, Problem
from rtdetr_slurm.spec.automl import RANGE_KEYS
from rtdetr_slurm.spec.experiment import ACTION_SECTIONS, SpecFile
from rtdetr_slurm.spec.fields import walk
from rtdetr_slurm.yaml_source import KeyPath, Position, YamlSource, dotted, parse_value, show

NUM_GPUS = "num_gpus"
SHORTHANDS: Mapping[str, str] = {
    "num_epochs": "train.num_epochs",
    "batch_size": "dataset.batch_size",
    "learning_rate": "train.optim.lr",
    "num_classes": "dataset.num_classes",
    "eval_class_ids": "dataset.eval_class_ids",
    NUM_GPUS: "train.num_gpus",
    "num_workers": "dataset.workers",
    "resume_checkpoint": "train.resume_training_checkpoint_path",
    "pretrained_model": "train.pretrained_model_path",
    "pretrained_backbone": "model.pretrained_backbone_path",
    "teacher_model": "distill.pretrained_teacher_model_path",
    "quantize_model": "quantize.model_path",
    "export_onnx": "export.onnx_file",
    "input_width": "export.input_width",
    "input_height": "export.input_height",
    "automl_policy": "automl.policy",
}
"""TAO's short names, and automl_policy; num_gpus goes to the section that the action takes its GPUs
from."""

ALIASES: Mapping[KeyPath, KeyPath] = {
    (*ref.path[:-1], also): ref.path
    for ref in walk(SpecFile)
    if (also := ref.extra("x-also-named")) is not None
}
"""Second name of a field to the field."""

_RANGES: KeyPath = ("automl", "ranges")

MISSING = "???"
"""OmegaConf's word for a value that is still to be given."""

KEY = re.compile(r"[^.\[\]=]+(\.[^.\[\]=]+|\[\d+\])*")
"""The dotted name of a field, in a key or a reference."""

_HOW_TO_SAY = (
    "say it with --action, with `action:` in the section `job:`, by giving the section of one "
    "action only, or by naming the file after it (train.yaml)"
)

_TEMPLATE, _DEPLOY_TEMPLATE = "spec_template_", "spec_template_deploy_"
"""How TAO calls its specs, before the name of the action."""


@dataclass(frozen=True)
class Override:
    """One `key=value`, taken apart."""

    text: str
    key: str
    path: KeyPath
    value: Any


@dataclass(frozen=True)
class Assembled:
    """A spec's data with all its parts in place, its action, and what went wrong on the way.

    Attributes:
        action: None when there is none, or none that exists; the problems say so.
        malformed: problems of overrides that did not get as far as the data.
    """

    source: YamlSource
    action: str | None
    problems: tuple[Problem, ...]
    malformed: tuple[LocatedProblem, ...]


def assemble(source: YamlSource, texts: Sequence[str], action: str | None) -> Assembled:
    """Put dotted keys, short names and overrides in their places.

    Args:
        texts: `key=value`, in the order given.
        action: what to do, if the spec is not to decide.
    """
    draft = _Draft(source)
    overrides = draft.parse(texts)
    for alias, path in ALIASES.items():
        draft.move(alias, path)
    for key in draft.special:
        if key != NUM_GPUS:
            draft.move((key,), field_path(key))
    for override in overrides:
        if override.key != NUM_GPUS:
            draft.apply(override)
    if action is None:
        action, reason = choose_action(draft.data, source.path)
        if reason:
            draft.problems.append(Problem((), reason))
    if action is not None:
        overrides = _place_num_gpus(draft, overrides, action)
        draft.refuse_repeats(overrides)
    return draft.result(action)


def _place_num_gpus(draft: _Draft, overrides: list[Override], action: str) -> list[Override]:
    """The short name that depends on the action; returns `overrides` with its path filled in."""
    section = ACTIONS[action].topology
    if section is None:
        reason = f"action '{action}' runs on one GPU; allowed: leave the short name out"
        draft.refuse(NUM_GPUS, reason, overrides)
        return [override for override in overrides if override.key != NUM_GPUS]
    path: KeyPath = (section, NUM_GPUS)
    draft.move((NUM_GPUS,), path)
    placed = [replace(o, path=path) if o.key == NUM_GPUS else o for o in overrides]
    for override in placed:
        if override.key == NUM_GPUS:
            draft.apply(override)
    return placed


def choose_action(data: Mapping[str, Any], path: Path) -> tuple[str | None, str | None]:
    """The action that the spec itself names, or the reason why there is none."""
    job = data.get("job")
    named = job.get("action") if isinstance(job, dict) else None
    if named not in (None, MISSING):
        # A wrong name is found, and placed, when the job section is validated.
        return (named, None) if named in ACTIONS else (None, None)
    present = [name for name in ACTION_SECTIONS if data.get(name) is not None]
    called = path.stem.removeprefix(_DEPLOY_TEMPLATE).removeprefix(_TEMPLATE)
    chosen = present[0] if len(present) == 1 else called
    if chosen in ACTIONS:
        deploys = path.stem.startswith(_DEPLOY_TEMPLATE) or _has_engine_alone(data.get(chosen))
        return deploy_action(chosen) if deploys else chosen, None
    found = f"the sections of several ({', '.join(present)})" if present else "none"
    return None, f"which action? found {found}; {_HOW_TO_SAY}; actions: {', '.join(ACTIONS)}"


def _has_engine_alone(section: Any) -> bool:
    """Whether a section has an engine to run and no checkpoint."""
    given = section if isinstance(section, dict) else {}
    engine, checkpoint = (given.get(name) or "" for name in ("trt_engine", "checkpoint"))
    return engine != "" and checkpoint in ("", MISSING)


def parse_override(text: str) -> Override:
    """Take `a.b=c` apart.

    Raises:
        RequestError: it is not of that form, or its value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise RequestError("no '=' in it; allowed: key=value, such as train.num_epochs=20")
    if key[:1] in ("+", "~"):
        raise RequestError(f"allowed: the key without '{key[0]}'; every key can be set")
    if not KEY.fullmatch(key):
        raise RequestError(
            f"{key!r} is not a key; allowed: names joined by dots, with list positions as .0 or "
            "[0], such as dataset.train_data_sources[0].image_dir"
        )
    parsed = parse_value(value) if value.strip() else ""
    return Override(text, key, field_path(key), parsed)


def field_path(key: str) -> KeyPath:
    """The field that a key names, be it by a short or a second name."""
    path = parse_key(SHORTHANDS.get(key, key))
    if path[: len(_RANGES)] == _RANGES:  # a mapping whose keys are dotted paths
        end = -1 if path[-1] in RANGE_KEYS else None
        name, rest = path[len(_RANGES) : end], path[end:] if end else ()
        return (*_RANGES, dotted(name), *rest) if name else path
    return ALIASES.get(path, path)


def parse_key(key: str) -> KeyPath:
    """`a.b[0].1` as `("a", "b", 0, 1)`."""
    parts = key.replace("[", ".").replace("]", "").split(".")
    return tuple(int(part) if part.isdigit() else part for part in parts)


class _NoSuchPlace(Exception):
    """A path leads through a value that has nothing inside, or past the end of a list."""


class _Draft:
    """Data under construction, with the place that each part came from."""

    def __init__(self, source: YamlSource) -> None:
        self.original = source
        self.special = [key for key in source.data if _is_special(key)]
        self.data = {k: v for k, v in source.data.items() if k not in self.special}
        self.positions = self._kept(source.positions)
        self.key_positions = self._kept(source.key_positions)
        self.overrides: list[tuple[KeyPath, str]] = []
        self.problems: list[Problem] = []
        self.malformed: list[LocatedProblem] = []

    def _kept(self, places: Mapping[KeyPath, Position]) -> dict[KeyPath, Position]:
        return {path: at for path, at in places.items() if not path or path[0] not in self.special}

    def parse(self, texts: Sequence[str]) -> list[Override]:
        overrides = []
        for text in texts:
            try:
                overrides.append(parse_override(text))
            except RequestError as error:
                self._malformed(text, "", str(error))
        return overrides

    def move(self, old: KeyPath, new: KeyPath) -> None:
        """Put what the file has at `old`, if anything, where it belongs."""
        if old not in self.original.key_positions:
            return
        line = self.original.key_positions[old].line
        self.data = _without(self.data, old)
        if new in self.positions:
            other = self.key_positions[new].line
            reason = f"given twice: as {dotted(old)!r} in line {line} and in line {other}"
            self.problems.append(Problem(new, reason, key=True))
            return
        self._note_places(old, new)
        value = _value_at(self.original.data, old)
        try:
            self.data, _ = _with_value(self.data, new, value)
        except _NoSuchPlace as error:
            self.problems.append(Problem(new, str(error), key=True))

    def apply(self, override: Override) -> None:
        try:
            self.data, path = _with_value(self.data, override.path, override.value)
        except _NoSuchPlace as error:
            self._malformed(override.text, dotted(override.path), str(error))
        else:
            self.overrides.append((path, override.text))

    def refuse(self, key: str, reason: str, overrides: Sequence[Override]) -> None:
        """A special key that means nothing here, wherever it is given."""
        if key in self.special:
            self._note_places((key,), (key,))
            self.problems.append(Problem((key,), reason, key=True))
        for override in overrides:
            if override.key == key:
                self._malformed(override.text, "", reason)

    def refuse_repeats(self, overrides: Sequence[Override]) -> None:
        """An override that another one takes the place of is a mistake, by whatever names."""
        for number, later in enumerate(overrides):
            for earlier in overrides[:number]:
                if earlier.path[: len(later.path)] == later.path:
                    reason = f"given twice: also by override {earlier.text!r}; give one of them"
                    self._malformed(later.text, dotted(later.path), reason)
                    break

    def result(self, action: str | None) -> Assembled:
        source = replace(
            self.original,
            data=self.data,
            positions=self.positions,
            key_positions=self.key_positions,
            overrides=tuple(self.overrides),
        )
        return Assembled(source, action, tuple(self.problems), tuple(self.malformed))

    def _note_places(self, old: KeyPath, new: KeyPath) -> None:
        original, depth = self.original, len(old)
        for places, known in (
            (original.positions, self.positions),
            (original.key_positions, self.key_positions),
        ):
            found = {at: place for at, place in places.items() if at[:depth] == old}
            known.update({new + at[depth:]: place for at, place in found.items()})

    def _malformed(self, text: str, field: str, reason: str) -> None:
        item = LocatedProblem(str(self.original.path), None, text, field, reason)
        self.malformed.append(item)


def _is_special(key: str) -> bool:
    return key in SHORTHANDS or ("." in key and KEY.fullmatch(key) is not None)


def _value_at(node: Any, path: KeyPath) -> Any:
    for part in path:
        node = node[part]
    return node


def _without(node: dict[str, Any], path: KeyPath) -> dict[str, Any]:
    """A copy of nested sections without the key at `path`."""
    key, rest = str(path[0]), path[1:]
    if key not in node:
        return node
    if rest:
        return {**node, key: _without(node[key], rest)}
    return {name: value for name, value in node.items() if name != key}


def _with_value(node: Any, path: KeyPath, value: Any, done: KeyPath = ()) -> tuple[Any, KeyPath]:
    """A copy of `node` with `value` at `path`, and the path as the data has it.

    A list takes a value at a position it has, or at the next one.
    """
    if not path:
        return value, done
    part, rest = path[0], path[1:]
    if node is None or node == MISSING:
        node = [] if isinstance(part, int) else {}
    if isinstance(node, dict):
        key = str(part)
        inner, full = _with_value(node.get(key), rest, value, (*done, key))
        return {**node, key: inner}, full
    if not isinstance(node, list):
        raise _NoSuchPlace(f"{dotted(done)} is {show(node)}, which has nothing inside to set")
    if not isinstance(part, int):
        raise _NoSuchPlace(f"{dotted(done)} is a list; allowed: a position in it, such as [0]")
    if part > len(node):
        raise _NoSuchPlace(f"{dotted(done)} has {len(node)} entries; allowed: 0..{len(node)}")
    old = node[part] if part < len(node) else None
    inner, full = _with_value(old, rest, value, (*done, part))
    return [*node[:part], inner, *node[part + 1 :]], full
