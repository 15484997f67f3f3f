"""Pictures with their detections."""

from __future__ import annotations

import numpy as np

from rtdetr_slurm.vision.drawing import (
    CELL,
    Drawn,
    annotate,
    class_colour,
    draw_detections,
    draw_sheet,
)


def test_draws_boxes_in_class_colours() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    detections = [
        Drawn((50, 40, 90, 80), 1, 0.9),
        Drawn((120, 40, 160, 80), 2, 0.8),
        Drawn((5, 5, 15, 15), 3, 0.1),  # too weak
        Drawn((-50, -50, 500, 500), 1, 0.5),  # beyond the picture
        Drawn((500, 500, 600, 600), 1, 0.9),  # nothing of it inside
    ]
    drawn = np.asarray(draw_detections(pixels, detections, {1: "one", 2: "two"}))
    scale = CELL / 200
    assert drawn.shape == (CELL // 2, CELL, 3)
    assert tuple(drawn[int(60 * scale), int(50 * scale) + 1]) == class_colour(1)
    assert tuple(drawn[int(60 * scale), int(120 * scale) + 1]) == class_colour(2)
    assert not drawn[int(10 * scale), int(10 * scale)].any()
    assert not (drawn == class_colour(3)).all(axis=-1).any()


def test_sheet_has_a_cell_for_each() -> None:
    picture = (np.full((50, 70, 3), 200, np.uint8), [Drawn((1, 1, 20, 20), 0, 0.99)])
    assert draw_sheet([picture] * 3, {}).width < draw_sheet([picture] * 4, {}).width
    assert draw_sheet([picture] * 4, {}).height < draw_sheet([picture] * 5, {}).height
    assert draw_sheet([], {}).size


def test_annotates_in_the_pictures_own_size() -> None:
    pixels = np.zeros((300, 200, 3), np.uint8)
    detections = [
        Drawn((50, 140, 90, 180), 1, 0.1),  # whoever asks has chosen by score
        Drawn((120, 140, 160, 180), 2, 0.8),
        Drawn((-5, 250, 300, 400), 1, 0.9),
    ]
    drawn = np.asarray(annotate(pixels, detections, {1: "one"}, {2: (1, 2, 3)}, 7))
    assert drawn.shape == pixels.shape
    assert not pixels.any()
    for column in range(50, 57):
        assert tuple(drawn[160, column]) == class_colour(1)
    assert not drawn[160, 57].any()
    assert tuple(drawn[160, 121]) == (1, 2, 3)
    assert tuple(drawn[275, 3]) == class_colour(1)


def test_boxes_of_every_size_are_drawn() -> None:
    rng = np.random.default_rng(0)
    for size in (3, 40):
        sides = rng.uniform(0, 12, (200, 4)) * [size / 12, size / 12, 1, 1]
        boxes = [Drawn((x, y, x + w, y + h), 0, 0.9) for x, y, w, h in sides.tolist()]
        for outline in (1, 3, 50):
            annotate(np.zeros((size, size, 3), np.uint8), boxes, {}, {}, outline)
