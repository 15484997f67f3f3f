"""HTML and SVG from text that may hold anything: what is not markup already is escaped."""

from __future__ import annotations

import html
import re

_NOT_SHOWN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters and halves of characters: no HTML document has them."""
_VOID = frozenset({"img", "input", "meta"})


class Markup(str):
    """Text that is HTML."""

    __slots__ = ()


def element(_name: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """An element with its children; those that are no `Markup` are text, and escaped.

    Args:
        attributes: `class_` is `class`, `stroke_width` is `stroke-width`; None leaves one out, and
            "" is one without a value.
    """
    shown = (
        f" {key.rstrip('_').replace('_', '-')}" + (f'="{_value(value)}"' if value != "" else "")
        for key, value in attributes.items()
        if value is not None
    )
    start = f"<{_name}{''.join(shown)}>"
    return Markup(start if _name in _VOID else f"{start}{joined(*children)}</{_name}>")


def joined(*children: str) -> Markup:
    """Several pieces one after the other."""
    return Markup("".join(one if isinstance(one, Markup) else escaped(one) for one in children))


def escaped(text: str) -> Markup:
    """Text as HTML, in an element or between double quotes."""
    return Markup(html.escape(_NOT_SHOWN.sub("\ufffd", text)))


def _value(value: str | float) -> str:
    return escaped(value) if isinstance(value, str) else f"{value:.6g}"
