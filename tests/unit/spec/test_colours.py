"""Colours of a spec."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import ImageColor
from spec_files import NEEDED, load, only, problems

from rtdetr_slurm.spec.colours import NAMES, parse_colour


def test_the_names_are_those_that_tao_takes() -> None:
    """Pillow's; it replaces in its table what somebody has used."""
    theirs = {name: ImageColor.getrgb(name) for name in list(ImageColor.colormap)}
    assert {name: parse_colour(name) for name in NAMES} == theirs


@pytest.mark.parametrize(
    ("text", "colour"),
    [
        ("red", (255, 0, 0)),
        ("SteelBlue", (70, 130, 180)),
        ("#00ff7f", (0, 255, 127)),
        ("#F80", (255, 136, 0)),
        ("#ff", None),
        ("#gggggg", None),
        ("ff0000", None),
        ("", None),
    ],
)
def test_a_colour_is_a_name_or_hex(text: str, colour: tuple[int, int, int] | None) -> None:
    assert parse_colour(text) == colour


def test_what_is_no_colour_is_refused_with_its_place(tmp_path: Path) -> None:
    text = "inference:\n  color_map: {cat: red, dog: gren}\n"
    line = only(problems(tmp_path, text, *NEEDED["inference"], action="inference"))
    assert line.strip().startswith("spec.yaml:2:30: inference.color_map.dog: found 'gren'")
    assert line.endswith("#rrggbb or #rgb; did you mean 'green'?")
    load(tmp_path, text.replace("gren", "'#00f'"), *NEEDED["inference"], action="inference")
