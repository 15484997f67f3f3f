"""Image files to pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdetr_slurm.data.pixels import BadImage, load_image, open_image_file


class TestImages:
    def save(
        self, tmp_path: Path, image: Image.Image, suffix: str = ".png", **options: object
    ) -> Path:
        path = tmp_path / f"image{suffix}"
        image.save(path, **options)
        return path

    @pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "1", "LA"])
    def test_every_mode_becomes_rgb(self, tmp_path: Path, mode: str) -> None:
        source = Image.new("RGB", (4, 3), (255, 255, 255)).convert(mode)
        path = self.save(tmp_path, source, ".tif" if mode == "CMYK" else ".png")
        loaded = load_image(path)
        assert isinstance(loaded, np.ndarray)
        assert (loaded.shape, loaded.dtype) == ((3, 4, 3), np.uint8)
        assert (loaded >= 250).all()

    def test_sixteen_bits_keep_the_high_byte(self, tmp_path: Path) -> None:
        values = np.array([[0, 0x1234, 0x80FF, 0xFFFF]], dtype=np.uint16)
        loaded = load_image(self.save(tmp_path, Image.fromarray(values)))
        assert isinstance(loaded, np.ndarray)
        assert loaded[0, :, 1].tolist() == [0, 0x12, 0x80, 0xFF]

    def test_exif_orientation_is_applied(self, tmp_path: Path) -> None:
        pixels = np.zeros((20, 10, 3), np.uint8)
        pixels[:4] = 255  # stored: a bright strip at the top
        exif = Image.Exif()
        exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise: the strip at the right
        loaded = load_image(self.save(tmp_path, Image.fromarray(pixels), ".jpg", exif=exif))
        assert isinstance(loaded, np.ndarray)
        assert loaded.shape == (10, 20, 3)
        assert loaded[:, -2:].mean() > 240
        assert loaded[:, :10].mean() < 20

    @pytest.mark.parametrize(
        ("suffix", "orientation", "stored", "shrunk"),
        [
            (".jpg", 1, (99, 121), (25, 31)),
            (".jpg", 8, (96, 120), (30, 24)),
            (".jpg", 8, (99, 121), (121, 99)),  # sides that four does not divide, and turned
            (".png", 1, (99, 121), (99, 121)),
        ],
    )
    def test_some_files_are_decoded_at_a_fraction_of_their_size(
        self,
        tmp_path: Path,
        suffix: str,
        orientation: int,
        stored: tuple[int, int],
        shrunk: tuple[int, int],
    ) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(pixels).resize(stored, Image.Resampling.BICUBIC)
        path = self.save(tmp_path, image, suffix, exif=exif, quality=95)
        whole, opened = load_image(path), open_image_file(path)
        assert isinstance(whole, np.ndarray)
        assert not isinstance(opened, BadImage)
        assert opened.size == whole.shape[1::-1]
        decoded = opened.decode(4)
        assert not isinstance(decoded, BadImage)
        assert decoded.size == shrunk
        expected = np.asarray(Image.fromarray(whole).reduce(-(-whole.shape[1] // shrunk[0])))
        difference = np.abs(expected.astype(int) - np.asarray(decoded))
        assert difference[:24, :24].max() < 12

    def test_what_cannot_be_decoded(self, tmp_path: Path) -> None:
        whole = self.save(tmp_path, Image.new("RGB", (64, 64), (1, 2, 3)), ".jpg")
        torn = tmp_path / "torn.jpg"
        torn.write_bytes(whole.read_bytes()[:-40])
        text = tmp_path / "text.jpg"
        text.write_text("not an image")
        floats = self.save(tmp_path, Image.fromarray(np.zeros((2, 2), np.float32)), ".tif")
        for path, reason in (
            (torn, "truncated"),
            (text, "it is no image of a known format"),
            (floats, "32-bit floats"),
            (tmp_path / "none.jpg", "does not exist"),
        ):
            bad = load_image(path)
            assert isinstance(bad, BadImage)
            assert reason in bad.reason
            assert str(bad) == f"image {path} {bad.reason}"

    def test_an_image_beyond_the_limit(self, tmp_path: Path) -> None:
        bad = load_image(self.save(tmp_path, Image.new("1", (13_400, 13_400))))
        assert isinstance(bad, BadImage)
        assert (
            bad.reason
            == "has more than 178956970 pixels, the most that are decoded; cut it into tiles"
        )
