"""Position code and anchors against their formulas, cell by cell."""

from __future__ import annotations

import math

import torch
from model_support import images, small_model

from rtdetr_slurm.engine.models.positions import anchors, position_code

CPU = torch.device("cpu")


def test_position_code_of_a_rectangle() -> None:
    height, width, dim, temperature = 3, 5, 8, 100.0
    code = position_code(height, width, dim, temperature, torch.float64, CPU)
    assert code.shape == (1, height * width, dim)
    for y in range(height):
        for x in range(width):
            omega = [temperature ** -(i / 2) for i in range(2)]
            expected = [
                *(math.sin(y * o) for o in omega),
                *(math.cos(y * o) for o in omega),
                *(math.sin(x * o) for o in omega),
                *(math.cos(x * o) for o in omega),
            ]
            torch.testing.assert_close(
                code[0, y * width + x], torch.tensor(expected, dtype=torch.float64)
            )


def test_anchors_of_a_rectangle() -> None:
    logits, valid = anchors(((2, 60), (1, 30)), torch.float64, CPU)
    assert logits.shape == (1, 150, 4)
    cell = 60 + 7  # row 1, column 7 of the first level
    expected = torch.tensor([7.5 / 60, 1.5 / 2, 0.05, 0.05], dtype=torch.float64)
    torch.testing.assert_close(logits[0, cell].sigmoid(), expected)
    torch.testing.assert_close(
        logits[0, 120 + 3].sigmoid()[2:], torch.full((2,), 0.1, dtype=torch.float64)
    )
    # Columns 0 and 59 of the first level are closer than 0.01 to the border.
    assert (~valid[0, :, 0]).nonzero().flatten().tolist() == [0, 59, 60, 119]
    assert torch.isfinite(logits).all()
    assert torch.isfinite(logits.half()).all()
    assert (logits[~valid.expand_as(logits)].sigmoid() == 1).all()


def test_invalid_anchors_at_640() -> None:
    _, valid = anchors(((80, 80), (40, 40), (20, 20)), torch.float32, CPU)
    assert int((~valid).sum()) == 316  # the outermost ring of the stride-8 map


def test_one_model_takes_every_size_and_keeps_none_in_its_state() -> None:
    model = small_model().eval()
    names = set(model.state_dict())
    with torch.inference_mode():
        for height, width in ((64, 64), (64, 160), (160, 64)):
            assert model(images(1, height, width))["pred_boxes"].shape == (1, 12, 4)
    assert set(model.state_dict()) == names


def test_what_inference_mode_has_made_is_usable_in_training() -> None:
    with torch.inference_mode():
        code = position_code(3, 7, 16, 10000.0, torch.float64, CPU)
        made = [code, *anchors(((3, 7),), torch.float64, CPU)]
    assert not any(one.is_inference() for one in made)
    assert position_code(3, 7, 16, 10000.0, torch.float64, CPU) is code


def test_transposed_image_sees_transposed_positions() -> None:
    """The code of a map is the code of its transpose with rows and columns exchanged."""
    code = position_code(4, 6, 16, 10000.0, torch.float64, CPU).view(4, 6, 16)
    other = position_code(6, 4, 16, 10000.0, torch.float64, CPU).view(6, 4, 16)
    exchanged = torch.cat([other[..., 8:], other[..., :8]], dim=-1)
    torch.testing.assert_close(code, exchanged.transpose(0, 1))
