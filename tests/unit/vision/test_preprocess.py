"""Image to network input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from rtdetr_slurm.vision.preprocess import Resize, preprocess


def test_uint8_resize_of_pillow_and_torchvision_agree() -> None:
    """No pixel differs by more than a rounding."""
    rng = np.random.default_rng(0)
    for height, width in ((48, 64), (200, 130), (97, 31), (96, 64)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        theirs = v2.functional.resize(
            torch.from_numpy(image).permute(2, 0, 1), [96, 64], antialias=True
        )
        torch.testing.assert_close(
            preprocess(image, Resize((96, 64))), theirs[None] / 255, atol=1.001 / 255, rtol=0
        )


class TestAspectRatio:
    """Of inputs of 64 x 96 (height, width) unless said."""

    @pytest.mark.parametrize(
        ("image", "shown"),
        [
            ((96, 64), (96, 64)),  # it is as it should be
            ((192, 128), (96, 64)),
            ((333, 97), (96, 28)),  # 97 * 96 / 333 = 27.96
            ((97, 333), (19, 64)),  # 97 * 64 / 333 = 18.64
            ((7, 5), (90, 64)),  # 7 * 64 / 5 = 89.6
            ((10_000, 3), (96, 1)),  # of what would be nothing, a pixel is left
        ],
    )
    def test_where_the_image_is(self, image: tuple[int, int], shown: tuple[int, int]) -> None:
        """Width and height, worked out by hand."""
        resize = Resize((64, 96), preserve_aspect_ratio=True)
        assert resize.shown(torch.tensor([image])).tolist() == [list(shown)]
        white = Image.new("RGB", image, (255, 255, 255))
        pixels = resize.to_pixels(white)
        expected = torch.zeros(3, 64, 96, dtype=torch.uint8)
        expected[:, : shown[1], : shown[0]] = 255  # black is right or below
        assert torch.equal(pixels, expected)

    def test_the_image_is_resized_as_any_other(self) -> None:
        image = np.random.default_rng(0).integers(0, 256, (97, 333, 3), dtype=np.uint8)
        kept = preprocess(image, Resize((64, 96), preserve_aspect_ratio=True))
        assert torch.equal(kept[..., :28, :], preprocess(image, Resize((28, 96))))
        assert not kept[..., 28:, :].any()

    @pytest.mark.parametrize("size", [(64, 64), (64, 96), (96, 64)])
    def test_corners_of_the_image_come_back_exactly(self, size: tuple[int, int]) -> None:
        """From where they are in the input to where they are in the image, for odd sizes."""
        resize = Resize(size, preserve_aspect_ratio=True)
        images = torch.tensor([[333, 97], [97, 333], [5, 5], [1021, 1023], [2, 4001]])
        whole = torch.tensor(size[::-1])
        corners = resize.shown(images) / whole  # right bottom, in 0..1 of the input
        torch.testing.assert_close(corners * resize.extents(images), images.double())

    def test_stretched_images_fill_the_input(self) -> None:
        sizes = torch.tensor([[333.0, 97.0], [97.0, 333.0]])
        assert torch.equal(Resize((64, 96)).extents(sizes), sizes.double())
