"""How a spec field is declared: its type, its default and all else that is known about it, once.

From these declarations come the validation, the JSON Schemas, the templates, the documentation
and (later) the search space. A new field is one more declaration; nothing else lists fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from functools import cache, partial
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.fields import FieldInfo

from rtdetr_slurm.actions import ACTIONS, DEPLOY, Model
from rtdetr_slurm.contract import Infer
from rtdetr_slurm.model_check import nested_model
from rtdetr_slurm.yaml_source import KeyPath, dotted

# Who a field is meant for, or what needs it; from the table of actions.
EVERY = tuple(ACTIONS)
TRAINING = tuple(name for name, action in ACTIONS.items() if action.trains)
"""Actions that have a training loop."""

DEPLOYING = tuple(name for name, action in ACTIONS.items() if action.program == DEPLOY)
"""Actions of the TensorRT image."""

# Who honours a field. An action that is not available yet honours nothing, whatever is listed.
TRAIN = ("train",)
EVALUATE = ("evaluate",)
INFERENCE = ("inference",)
EXPORT = ("export",)
DISTILL = ("distill",)
QUANTIZE = ("quantize",)
TRAINED = ("evaluate", "inference", "export", "quantize", *DEPLOYING)
"""Actions that build the model for weights that a training has left."""
SCORING = (*TRAINING, "evaluate", "export", "quantize", *DEPLOYING)
"""Actions that run the model on annotated images."""
ON_IMAGES = (*SCORING, *INFERENCE)
"""Actions that run the model on images, annotated or not."""
MODEL = (*TRAINING, *TRAINED)
"""Actions that build the model as the spec describes it."""

_BOUND_OF_SIGN = {">": "gt", ">=": "ge", "<": "lt", "<=": "le"}


def users(section: str) -> tuple[str, ...]:
    """The actions that a section is for, or that take nodes and GPUs from it."""
    return tuple(name for name, a in ACTIONS.items() if section in (a.section, a.topology))


def readers(source: str) -> tuple[str, ...]:
    """The actions that need a kind of data source, as the table of actions calls it."""
    return tuple(name for name, action in ACTIONS.items() if source in action.reads)


def openers(source: str) -> tuple[str, ...]:
    """The actions that open a kind of data source where the spec has it."""
    return tuple(
        name for name, action in ACTIONS.items() if source in (*action.reads, *action.may_read)
    )


class Section(BaseModel):
    """Base of all sections: strict types, no unknown keys, immutable, `null` means defaults."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, data: Any) -> Any:
        return {} if data is None else data


def field(
    default: Any,
    *,
    description: str,
    used_by: Sequence[str] | None = None,
    honoured_by: Sequence[str] = (),
    no_effect_in: Sequence[str] = (),
    idle: str | None = None,
    switch: str | None = None,
    untrained: str | None = None,
    required_by: Sequence[str] = (),
    path: Literal["read", "write", "new", "update"] | None = None,
    holds: Literal["weights", "checkpoint", "model", "images", "onnx", "engine"] | None = None,
    source: str | None = None,
    inferred: str | None = None,
    inferred_in: Sequence[str] = (),
    takes: Model = "checkpoint",
    takes_if: tuple[str, Any, Model] | None = None,
    carried: Sequence[str] = (),
    also_named: str | None = None,
    ge: float | None = None,
    le: float | None = None,
    math_cond: str | None = None,
    automl: Literal["default_parameter", "disabled"] | None = None,
    popular: bool = False,
    parent_param: bool = False,
    depends_on: str | None = None,
    also_default: Sequence[Any] = (),
    template: Any = None,
) -> Any:
    """Declare one field of a section.

    Args:
        default: value when the spec says nothing. A `Section` class makes a nested section;
            `...` is a field that must be given.
        used_by: actions the field is meant for; None means those of the section around it.
        honoured_by: actions in which any valid value works today. In the other actions that it
            is meant for, a value other than the default is refused by name.
        no_effect_in: actions in which every valid value is accepted because, by design, none
            changes anything.
        idle: why no value of it changes anything in any action; one that is given is accepted, and
            this is said.
        switch: of a section: its field without which the others change nothing; likewise.
        untrained: of a section: why what it holds for training alone changes nothing; likewise.
        required_by: those of the actions it is meant for that cannot start while it is empty.
        path: the value is a path, or a list of paths, that the action reads, writes, writes where
            there is nothing yet (`new`), or reads where it exists and then replaces (`update`).
        holds: what its file is: `weights` in any format that can be read, a `checkpoint` of this
            engine, a `model`, which is weights or an ONNX file, an `onnx` file, an `engine` of
            TensorRT with what lies beside it, or `images`, also a list of them.
            Looked at before a job is queued.
        source: the value is this kind of data source, meant for the actions that open it;
            `required_by` then leaves out those that can do without.
        inferred: TAO's inference function that fills the field where it is left empty
            (contract.Infer).
        inferred_in: the actions in which it does; else those that need the field, else those that
            it is meant for.
        takes: the form of the model that `parent_model` fills in.
        takes_if: a field beside it, a value of that, and what is taken instead where it has it.
        carried: the actions that, when they continue an earlier run, must have its value.
        also_named: a second name of the field.
        ge, le: bounds, both inclusive.
        math_cond: a comparison with a number, such as `> 0`; enforced.
        automl: TAO's AutoML flag: searched by default, or never searched.
        popular: TAO's flag for fields a user is likely to change.
        parent_param: TAO's flag for a field that others depend on.
        depends_on: dotted path of the field that limits this one (enforced in rules.py).
        also_default: further values that TAO's own files write where nobody chose anything.
        template: what the generated templates show instead of the default.
    """
    if source is not None:
        used_by, required_by = openers(source), required_by and readers(source)
    if used_by is not None:
        required_by = [action for action in required_by if action in used_by]
    bounds: dict[str, Any] = {"ge": ge, "le": le}
    if math_cond is not None:
        sign, _, number = math_cond.partition(" ")
        bounds[_BOUND_OF_SIGN[sign]] = float(number)
    # Keys without "x-" are TAO's own extension keys.
    extra: dict[str, Any] = {
        "popular": popular or None,
        "x-automl": automl,
        "x-math-cond": math_cond,
        "x-depends-on": depends_on,
        "x-parent-param": parent_param or None,
        "x-used-by": used_by and list(used_by),
        "x-honoured-by": list(honoured_by) or None,
        "x-no-effect-in": list(EVERY if idle else no_effect_in) or None,
        "x-idle": idle,
        "x-switch": switch,
        "x-untrained": untrained,
        "x-required-by": list(required_by) or None,
        "x-path": path,
        "x-holds": holds,
        "x-inferred": inferred,
        "x-inferred-in": list(inferred_in) or None,
        "x-carried": list(carried) or None,
        "x-takes": takes if inferred == Infer.PARENT_MODEL else None,
        "x-takes-if": takes_if and list(takes_if),
        "x-also-named": also_named,
        "x-also-default": list(also_default) or None,
        "x-template": template,
    }
    nested = isinstance(default, type)
    return Field(
        **({"default_factory": default} if nested else {"default": default}),
        description=description,
        json_schema_extra={key: value for key, value in extra.items() if value is not None},
        **{name: bound for name, bound in bounds.items() if bound is not None},
    )


# --- types that several sections share -------------------------------------------------------
def _null_is_empty(value: Any) -> Any:
    return "" if value is None else value


OptionalText = Annotated[
    str, BeforeValidator(_null_is_empty), WithJsonSchema({"type": ["string", "null"]})
]
"""Text that TAO's files may also give as null; here it is then empty."""

GpuIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Side = Annotated[int, Field(ge=32, multiple_of=32)]
"""Height or width of a network input in pixels; the coarsest feature map has stride 32."""

SpatialSize = Annotated[list[Side], Field(min_length=2, max_length=2)]
"""[height, width]."""


# --- reading the declarations ----------------------------------------------------------------
@dataclass(frozen=True)
class FieldRef:
    """One declared field.

    Attributes:
        path: where it is; `[]` stands for any index of a list of sections.
        section: the class that declares it.
        nested: the section class inside its type, if any.
        used_by: the actions it is meant for; inherited where it does not say, and never more than
            the section around it is meant for.
        honoured_by: those of them in which it has its effect; inherited where it does not say.
        no_effect_in: actions in which it has none by design; inherited likewise. They may read it
            without being among those it is meant for.
        idle: why it changes nothing in any action; inherited likewise.
        required_by: those of them that cannot start while it is empty.
        takes: the form of the model that fills it, where one does.
    """

    path: KeyPath
    info: FieldInfo = dataclass_field(hash=False)
    section: type[Section]
    nested: type[Section] | None
    used_by: tuple[str, ...]
    honoured_by: tuple[str, ...]
    no_effect_in: tuple[str, ...]
    idle: str | None
    required_by: tuple[str, ...]
    takes: Model

    @property
    def default(self) -> Any:
        """The value when the spec says nothing; None where it has to say something."""
        if self.info.is_required():
            return None
        return self.info.get_default(call_default_factory=True)

    def extra(self, key: str) -> Any:
        """What the declaration says under an extension key of the schema, or None."""
        return extra(self.info, key)

    def inferred(self, action: str) -> str | None:
        """The inference function that fills the field in an action where it is left empty."""
        actions = self.extra("x-inferred-in") or self.required_by or self.used_by
        function: str | None = self.extra("x-inferred")
        return function if action in actions and action in self.used_by else None


def extra(info: FieldInfo, key: str) -> Any:
    """What a field's declaration says under an extension key of the schema, or None."""
    assert isinstance(info.json_schema_extra, dict)
    return info.json_schema_extra.get(key)


@cache
def declared(section: type[Section], above: FieldRef | None = None) -> tuple[FieldRef, ...]:
    """The fields of one section; `above` is the field that holds the section."""
    return tuple(_declared(section, above))


def _declared(section: type[Section], above: FieldRef | None) -> Iterator[FieldRef]:
    for name, info in section.model_fields.items():
        nested = nested_model(info.annotation)
        assert nested is None or issubclass(nested, Section)
        around = above.used_by if above else EVERY
        used_by = _among(around, extra(info, "x-used-by") or around)
        idle = extra(info, "x-idle") or (above.idle if above else None)
        if above and extra(info, "x-used-by"):
            idle = idle or above.extra("x-untrained")
        yield FieldRef(
            path=(*above.path, name) if above else (name,),
            info=info,
            section=section,
            nested=nested,
            used_by=used_by,
            honoured_by=()
            if idle
            else _among(
                used_by, extra(info, "x-honoured-by") or (above.honoured_by if above else ())
            ),
            no_effect_in=around
            if idle
            else _among(
                around, extra(info, "x-no-effect-in") or (above.no_effect_in if above else ())
            ),
            idle=idle,
            required_by=_among(used_by, extra(info, "x-required-by") or ()),
            takes=extra(info, "x-takes") or "checkpoint",
        )


def as_asked(ref: FieldRef, beside: Callable[[str], Any]) -> FieldRef:
    """The field as the values of its section have it.

    Args:
        beside: name of a field of that section to its value.
    """
    name, value, takes = ref.extra("x-takes-if") or (None, None, ref.takes)
    return replace(ref, takes=takes) if name and beside(name) == value else ref


def _among(actions: Sequence[str], said: Sequence[str]) -> tuple[str, ...]:
    return tuple(action for action in actions if action in said)


def walk(section: type[Section], above: FieldRef | None = None) -> Iterator[FieldRef]:
    """Every field below `section`, each section before its content, in the order declared."""
    for ref in declared(section, above):
        yield ref
        if ref.nested is not None:
            index = ("[]",) if is_list(ref.info) else ()
            yield from walk(ref.nested, replace(ref, path=ref.path + index))


def visit(section: Section, above: FieldRef | None = None) -> Iterator[tuple[FieldRef, Any]]:
    """Every field below a section that holds values, with its value; list items by index."""
    for ref in declared(type(section), above):
        value = getattr(section, str(ref.path[-1]))
        yield as_asked(ref, partial(getattr, section)), value
        if isinstance(value, Section):
            yield from visit(value, ref)
        elif ref.nested is not None and isinstance(value, list):
            for index, item in enumerate(value):
                yield from visit(item, replace(ref, path=(*ref.path, index)))


def is_chosen(ref: FieldRef, value: Any) -> bool:
    """Whether a value is neither the default nor what TAO's own files write in its place."""
    return value != ref.default and value not in (ref.extra("x-also-default") or ())


def switched_off(section: Section) -> dict[KeyPath, str]:
    """The sections below `section` that their own switch has off, with the switch's name."""
    return {
        ref.path: dotted((*ref.path, switch))
        for ref, value in visit(section)
        if (switch := ref.extra("x-switch")) and not getattr(value, switch)
    }


def is_list(info: FieldInfo) -> bool:
    """Whether a field's type is a list, or a list or null."""
    types = (info.annotation, *get_args(info.annotation))
    return any(get_origin(each) is list for each in types)
