"""HTML and SVG from text that may hold anything: what is not markup already is escaped. Standard
library only."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

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


STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { margin-top: 2.4rem; font-size: 1.2rem; }
p, figcaption { max-width: 75ch; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
  unicode-bidi: isolate; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
.numbers { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0; }
.numbers div { background: var(--soft); border-radius: 8px; padding: .6rem 1rem; }
.numbers b { display: block; font-size: 1.5rem; }
"""
"""How all reports look, on a bright and on a dark screen."""


SAFE = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""A policy by which a page may load nothing, and run nothing."""


def page(title: str, parts: Iterable[str], *, policy: str, style: str = "") -> bytes:
    """A whole HTML file, UTF-8, that begins with its title.

    Args:
        policy: what the page may load and run, as Content-Security-Policy.
        style: what it looks like besides STYLE.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width"),
        element("title", title),
        element("style", Markup(STYLE + style)),
    )
    body = element("body", element("h1", title), *parts)
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n".encode()


def text_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """A table of text, which is scrolled where it is too wide."""
    titles = [element("tr", *(element("th", name) for name in headings))] if headings else []
    lines = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    return element("div", element("table", *titles, *lines), class_="wide")
