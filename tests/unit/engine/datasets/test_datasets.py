"""From files to batches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from rtdetr_slurm.data.coco import Source, class_names, read_annotations
from rtdetr_slurm.data.sample import write_sample
from rtdetr_slurm.engine.datasets.loaders import evaluation_loader, training_loader
from rtdetr_slurm.engine.datasets.sampler import DistributedBatchSampler
from rtdetr_slurm.engine.datasets.seeds import mix_seed
from rtdetr_slurm.engine.datasets.training_set import TrainingSet
from rtdetr_slurm.engine.datasets.transforms import Augment
from rtdetr_slurm.spec.dataset import AugmentationConfig
from rtdetr_slurm.vision.images import BadImage, load_image
from rtdetr_slurm.vision.samples import Batch, EvaluationSet, Sample, collate, training_boxes
from rtdetr_slurm.vision.table import Table, build_table


def make_table(*folders: Path) -> Table:
    sources = [Source(f / "images", read_annotations(f / "annotations.json")) for f in folders]
    return build_table(sources, class_names([s.annotations for s in sources], 4))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    write_sample(tmp_path, train=10, val=7, size=96)
    return make_table(tmp_path / "train")


AUGMENTATION = AugmentationConfig(train_spatial_size=[64, 96])


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

    def test_what_cannot_be_decoded(self, tmp_path: Path) -> None:
        whole = self.save(tmp_path, Image.new("RGB", (64, 64), (1, 2, 3)), ".jpg")
        torn = tmp_path / "torn.jpg"
        torn.write_bytes(whole.read_bytes()[:-40])
        text = tmp_path / "text.jpg"
        text.write_text("not an image")
        floats = self.save(tmp_path, Image.fromarray(np.zeros((2, 2), np.float32)), ".tif")
        for path, reason in (
            (torn, "truncated"),
            (text, "cannot identify image file"),
            (floats, "32-bit floats"),
            (tmp_path / "none.jpg", "the file does not exist"),
        ):
            bad = load_image(path)
            assert isinstance(bad, BadImage)
            assert reason in bad.reason
            assert f"image {path} cannot be decoded" in str(bad)


class TestTable:
    def test_sources_are_joined_and_images_stay_apart(self, tmp_path: Path) -> None:
        """Both splits number their images from 1."""
        write_sample(tmp_path, train=4, val=3, size=64)
        table = make_table(tmp_path / "train", tmp_path / "val")
        assert len(table) == 7
        assert table.image_ids.tolist() == [1, 2, 3, 4, 1, 2, 3]
        assert table.path(4) == tmp_path / "val" / "images" / "000001.jpg"
        assert table.describe(4) == f"1 ({table.path(4)})"
        val = make_table(tmp_path / "val")
        assert np.array_equal(table.boxes[table.rows(5)], val.boxes[val.rows(1)])

    def test_unordered_annotations(self, tmp_path: Path) -> None:
        boxes = [(3, [3, 0, 1, 1]), (1, [1, 0, 1, 1]), (3, [3, 1, 1, 1])]
        content = {
            "images": [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2, 3)],
            "categories": [{"id": 1, "name": "a"}],
            "annotations": [{"image_id": i, "category_id": 1, "bbox": b} for i, b in boxes],
        }
        (tmp_path / "annotations.json").write_text(json.dumps(content))
        table = make_table(tmp_path)
        assert [table.boxes[table.rows(i)].tolist() for i in range(3)] == [
            [[1, 0, 1, 1]],
            [],
            [[3, 0, 1, 1], [3, 1, 1, 1]],
        ]

    def test_what_training_learns_from(self, tmp_path: Path) -> None:
        boxes = [
            ([10, 10, 20, 20], 0),
            ([10, 10, 20, 20], 1),  # a crowd
            ([90, 40, 30, 30], 0),  # reaches beyond the image
            ([5, 5, 0, 10], 0),  # no extent
            ([200, 5, 10, 10], 0),  # all outside
        ]
        content = {
            "images": [{"id": 1, "file_name": "a.jpg"}],
            "categories": [{"id": 2, "name": "a"}],
            "annotations": [
                {"image_id": 1, "category_id": 2, "bbox": b, "iscrowd": c} for b, c in boxes
            ],
        }
        (tmp_path / "annotations.json").write_text(json.dumps(content))
        table = make_table(tmp_path)
        corners, labels = training_boxes(table, 0, height=50, width=100)
        assert corners.tolist() == [[10, 10, 30, 30], [90, 40, 100, 50]]
        assert labels.tolist() == [2, 2]
        assert len(table.boxes) == 5  # scoring sees them all


class TestAugmentation:
    def samples(self, table: Table, seed: int, epoch: int) -> list[Sample]:
        data = TrainingSet(table, Augment(AUGMENTATION), seed, replace_bad=False)
        return [data[epoch, image] for image in range(len(table))]

    def test_is_a_function_of_seed_epoch_and_image(self, table: Table) -> None:
        first = self.samples(table, 1, 0)
        torch.manual_seed(123)  # the state outside does not matter, nor does the order
        again = TrainingSet(table, Augment(AUGMENTATION), 1, replace_bad=False)[0, 6]
        assert torch.equal(first[6].pixels, again.pixels)
        assert torch.equal(first[6].boxes, again.boxes)
        for other in (self.samples(table, 2, 0), self.samples(table, 1, 1)):
            same = [torch.equal(a.pixels, b.pixels) for a, b in zip(first, other, strict=True)]
            assert sum(same) <= 1

    def test_leaves_the_global_generator_alone(self, table: Table) -> None:
        before = torch.get_rng_state()
        self.samples(table, 1, 0)
        assert torch.equal(before, torch.get_rng_state())

    def test_shapes_and_boxes(self, table: Table) -> None:
        for sample in self.samples(table, 3, 0):
            assert sample.pixels.shape == (3, 64, 96)
            assert sample.pixels.dtype == torch.uint8
            assert sample.boxes.dtype == torch.float32
            assert len(sample.boxes) == len(sample.labels)
            corners = torch.cat(
                [
                    sample.boxes[:, :2] - sample.boxes[:, 2:] / 2,
                    sample.boxes[:, :2] + sample.boxes[:, 2:] / 2,
                ],
                dim=1,
            )
            assert (corners >= -1e-5).all()
            assert (corners <= 1 + 1e-5).all()

    def test_boxes_follow_their_objects(self, tmp_path: Path) -> None:
        """A white square on black: wherever it goes, its box goes."""
        (tmp_path / "images").mkdir()
        pixels = np.zeros((80, 120, 3), np.uint8)
        pixels[20:50, 60:100] = 255
        Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
        content = {
            "images": [{"id": 1, "file_name": "a.png"}],
            "categories": [{"id": 1, "name": "a"}],
            "annotations": [{"image_id": 1, "category_id": 1, "bbox": [60, 20, 40, 30]}],
        }
        (tmp_path / "annotations.json").write_text(json.dumps(content))
        cfg = AugmentationConfig(train_spatial_size=[96, 96], distortion_prob=0, iou_crop_prob=0.5)
        data = TrainingSet(make_table(tmp_path), Augment(cfg), 0, replace_bad=False)
        seen = 0
        for epoch in range(30):
            sample = data[epoch, 0]
            if not len(sample.boxes):
                continue
            bright = (sample.pixels[0] > 127).nonzero()
            top, left = bright.min(0).values.tolist()
            bottom, right = (bright.max(0).values + 1).tolist()
            centre, half = sample.boxes[0, :2] * 96, sample.boxes[0, 2:] * 48
            expected = [*(centre - half).tolist(), *(centre + half).tolist()]
            np.testing.assert_allclose([left, top, right, bottom], expected, atol=1.5)
            seen += 1
        assert seen > 20


class TestOrder:
    def batches(
        self, rank: int, ranks: int, epoch: int, first: int = 0, seed: int = 0
    ) -> list[list[tuple[int, int]]]:
        order = DistributedBatchSampler(26, 3, rank, ranks, seed)
        order.set_position(epoch, first)
        assert len(list(order)) == len(order)
        return list(order)

    def test_ranks_share_an_epoch(self) -> None:
        both = [self.batches(rank, 2, epoch=5) for rank in (0, 1)]
        assert [len(b) for b in both] == [4, 4]  # 26 // (3 x 2)
        images = [image for batches in both for batch in batches for _, image in batch]
        assert len(images) == len(set(images)) == 24
        assert {epoch for b in both for batch in b for epoch, _ in batch} == {5}

    def test_epochs_and_seeds_differ(self) -> None:
        assert self.batches(0, 1, epoch=0) != self.batches(0, 1, epoch=1)
        assert self.batches(0, 1, epoch=0) != self.batches(0, 1, epoch=0, seed=1)

    def test_goes_on_within_an_epoch(self) -> None:
        whole = self.batches(1, 2, epoch=2)
        assert self.batches(1, 2, epoch=2, first=3) == whole[3:]
        assert self.batches(1, 2, epoch=2, first=4) == []

    def test_does_not_depend_on_workers(self, table: Table) -> None:
        data = TrainingSet(table, Augment(AUGMENTATION), 0, replace_bad=False)
        delivered: list[list[Batch]] = []
        for workers in (0, 2):
            order = DistributedBatchSampler(len(table), 4, 0, 1, 0)
            loader = training_loader(data, order, workers=workers, pin_memory=False)
            both = []
            for epoch in (0, 1):
                order.set_position(epoch)
                both += list(loader)
            delivered.append(both)
        for a, b in zip(*delivered, strict=True):
            assert a.images == b.images
            assert torch.equal(a.pixels, b.pixels)
            assert torch.equal(a.boxes, b.boxes)

    def test_seeds_are_spread(self) -> None:
        assert len({mix_seed(0, i, j) for i in range(30) for j in range(30)}) == 900
        assert mix_seed(1234, 5, 6) == 5843002824270392582


class TestBatches:
    def test_packed_targets_come_apart_again(self, table: Table) -> None:
        data = EvaluationSet(table, (64, 64))
        samples = [data[i] for i in range(4)]
        batch = collate(samples)
        assert batch.pixels.shape == (4, 3, 64, 64)
        assert batch.num_boxes == sum(batch.counts) == len(batch.boxes)
        for sample, target in zip(samples, batch.targets(), strict=True):
            assert torch.equal(sample.boxes, target["boxes"])
            assert torch.equal(sample.labels, target["labels"])

    @pytest.mark.parametrize("ranks", [1, 2, 3, 12])
    def test_evaluation_covers_every_image_once(self, table: Table, ranks: int) -> None:
        data = EvaluationSet(table, (64, 64))
        images: list[int] = []
        for rank in range(ranks):
            loader = evaluation_loader(data, 3, rank, ranks, workers=0, pin_memory=False)
            images += [image for batch in loader for image in batch.images]
        assert sorted(images) == list(range(10))

    def test_evaluation_pixels_and_sizes(self, tmp_path: Path, table: Table) -> None:
        sample = EvaluationSet(table, (32, 64))[2]
        assert sample.size == (96, 96)
        boxes = table.boxes[table.rows(2)]
        expected = torch.from_numpy((boxes[:, :2] + boxes[:, 2:] / 2) / 96).float()
        torch.testing.assert_close(sample.boxes[:, :2], expected)


class TestBadImages:
    def break_image(self, table: Table, image: int) -> str:
        path = table.path(image)
        path.write_bytes(path.read_bytes()[:100])
        return str(path)

    def test_the_next_good_one_takes_its_place(self, table: Table) -> None:
        broken = [self.break_image(table, i) for i in (3, 4)]
        sample = TrainingSet(table, Augment(AUGMENTATION), 0, replace_bad=True)[1, 3]
        assert sample.image == 5
        assert [bad.path for bad in sample.bad] == broken

    def test_without_replacement_it_is_only_named(self, table: Table) -> None:
        broken = self.break_image(table, 3)
        data = TrainingSet(table, Augment(AUGMENTATION), 0, replace_bad=False)
        batch = collate([data[0, 2], data[0, 3]])
        assert [bad.path for bad in batch.bad] == [broken]

    def test_no_good_one_at_all(self, table: Table) -> None:
        for image in range(len(table)):
            self.break_image(table, image)
        sample = TrainingSet(table, Augment(AUGMENTATION), 0, replace_bad=True)[0, 0]
        assert len(sample.bad) == 10
        assert not sample.pixels.numel()

    def test_evaluation_goes_black(self, table: Table) -> None:
        self.break_image(table, 0)
        sample = EvaluationSet(table, (64, 64))[0]
        assert not sample.pixels.any()
        assert len(sample.bad) == 1


def test_uint8_resize_of_pillow_and_torchvision_agree() -> None:
    """Training resizes with torchvision, all else with Pillow: no pixel may differ by
    more than a rounding."""
    from torchvision.transforms import v2

    from rtdetr_slurm.vision.preprocess import preprocess, resize

    rng = np.random.default_rng(0)
    for height, width in ((48, 64), (200, 130), (97, 31)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        ours = torch.from_numpy(resize(image, (96, 64)).copy()).permute(2, 0, 1)
        theirs: Tensor = v2.functional.resize(
            torch.from_numpy(image).permute(2, 0, 1), [96, 64], antialias=True
        )
        assert (ours.int() - theirs.int()).abs().max() <= 1
        torch.testing.assert_close(preprocess(image, (96, 64)), ours[None] / 255)
