"""Images with boxes drawn on them, in an HTML page. Standard library only."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from rtdetr_slurm.markup import Markup, element

STYLE = """
:root { --truth: #00b7c7; --missed: #f2a900; --right: #2fae4a; --wrong: #e5383b; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr));
  gap: 1rem; }
figure { margin: 0; } figcaption { font-size: .85rem; overflow-wrap: anywhere; }
.picture { position: relative; } .picture img { display: block; width: 100%; height: auto; }
.picture svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: hidden; }
.picture rect { fill: transparent; stroke-width: 2.5; vector-effect: non-scaling-stroke; }
.picture rect.truth { stroke: var(--truth); stroke-dasharray: 7 4; }
.picture rect.missed { stroke: var(--missed); stroke-dasharray: 7 4; }
.picture rect.right { stroke: var(--right); } .picture rect.wrong { stroke: var(--wrong); }
.picture text { fill: #fff; font-size: inherit; paint-order: stroke; stroke: #000b;
  stroke-width: .2em; }
.key.truth { border-bottom: 3px dashed var(--truth); }
label { white-space: nowrap; margin-right: 1rem; }
.key.missed { border-bottom: 3px dashed var(--missed); }
.key.right { border-bottom: 3px solid var(--right); }
.key.wrong { border-bottom: 3px solid var(--wrong); }
body:has(#no-truth:checked) .picture .truth { display: none; }
body:has(#no-missed:checked) .picture .missed { display: none; }
body:has(#no-right:checked) .picture .right { display: none; }
body:has(#no-wrong:checked) .picture .wrong { display: none; }
"""
"""How they look, by the sorts of their boxes."""


@dataclass(frozen=True)
class ShownBox:
    """A box on a picture.

    Attributes:
        box: left, top, width, height in pixels of the picture.
        sort: `truth`: as annotated; of the boxes to find also `missed`; of detections `right` or
            `wrong`.
        text: what it is.
    """

    box: tuple[float, float, float, float]
    sort: str
    text: str


def figure(
    jpeg: bytes,
    size: tuple[int, int],
    boxes: Iterable[ShownBox],
    name: str,
    caption: str,
    written: Collection[str],
) -> Markup:
    """An image and the boxes on it, what each is where the pointer rests.

    Args:
        size: width and height of the image.
        name: of the image.
        written: sorts of boxes whose text stands beside them, too.
    """
    width, height = size
    source = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
    shapes: list[Markup] = []
    for shown in boxes:
        x, y, wide, high = shown.box
        place = {"x": x, "y": y, "width": wide, "height": high}
        shapes.append(element("rect", element("title", shown.text), class_=shown.sort, **place))
        if shown.sort in written:
            at = {"x": max(x, 0) + width / 90, "y": max(y, 0) + width / 26}
            shapes.append(element("text", shown.text, class_=shown.sort, **at))
    view = {"viewBox": f"0 0 {width} {height}", "role": "img"}
    overlay = element("svg", *shapes, font_size=width / 28, **view)
    image = element("img", src=source, alt=name, width=width, height=height)
    return element(
        "figure",
        element("div", image, overlay, class_="picture"),
        element("figcaption", caption),
    )
