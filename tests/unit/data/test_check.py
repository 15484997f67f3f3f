"""The data of an action as a whole: what is refused, and what is noted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from coco_support import coco, written
from PIL import Image

from rtdetr_slurm.data.check import Checks, check_sources
from rtdetr_slurm.data.classes import class_names
from rtdetr_slurm.data.coco import read_annotations
from rtdetr_slurm.data.findings import BadData
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec import ExperimentConfig, load_spec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A training and a validation source of the same content."""
    for split in ("train", "val"):
        written(tmp_path / split / "annotations.json", coco())
        for name in ("a.jpg", "b.jpg"):
            written(tmp_path / split / name, "")
    return tmp_path


def experiment(folder: Path, *overrides: str, action: str = "train") -> ExperimentConfig:
    def source(split: str) -> dict[str, str]:
        return {
            "image_dir": str(folder / split),
            "json_file": str(folder / split / "annotations.json"),
        }

    spec = {
        "results_dir": str(folder / "results"),
        "dataset": {
            "train_data_sources": [source("train")],
            "val_data_sources": source("val"),
            "test_data_sources": source("val"),
            "num_classes": 4,
        },
        "model": {"num_queries": 10, "num_select": 10},
        "evaluate": {"checkpoint": "model.pth"},
    }
    path = written(folder / "spec.yaml", spec)
    return load_spec(path, overrides, action=action).experiment


@pytest.mark.parametrize("action", ["train", "evaluate"])
def test_good_sources_pass(folder: Path, action: str) -> None:
    check_sources(experiment(folder, action=action), action)


@pytest.mark.parametrize(("action", "split"), [("train", "train"), ("evaluate", "val")])
def test_missing_folder(folder: Path, action: str, split: str) -> None:
    (folder / split).rename(folder / "elsewhere")
    with pytest.raises(RequestError, match=f"image folder .*/{split} .*does not exist"):
        check_sources(experiment(folder, action=action), action)


def test_an_archive_of_annotated_images(folder: Path) -> None:
    """As in TAO's own examples, where the platform unpacks it."""
    written(folder / "images.tar.gz", "")
    source = f"{{image_dir: {folder}/images.tar.gz, json_file: {folder}/train/annotations.json}}"
    with pytest.raises(RequestError, match=r"images\.tar\.gz .*is not a folder; .*unpack the"):
        check_sources(experiment(folder, f"dataset.train_data_sources=[{source}]"), "train")


@pytest.mark.parametrize("name", ["a.jpg", "b.jpg"])
def test_folder_without_the_images(folder: Path, name: str) -> None:
    (folder / "train" / name).unlink()
    with pytest.raises(RequestError, match=rf"1 of the 2 image files do not exist: '{name}'"):
        check_sources(experiment(folder), "train")
    checked = check_sources(experiment(folder), "train", Checks(skip_bad_images=True))
    (note,) = [note for note in checked.notes if "do not exist" in note]
    assert note.endswith("such images are left out")
    (folder / "train" / ({"a.jpg", "b.jpg"} - {name}).pop()).unlink()
    with pytest.raises(RequestError, match="2 of the 2 image files do not exist"):
        check_sources(experiment(folder), "train", Checks(skip_bad_images=True))


def test_num_classes_too_small(folder: Path) -> None:
    with pytest.raises(RequestError) as caught:
        check_sources(experiment(folder, "dataset.num_classes=3"), "train")
    message = str(caught.value)
    assert "category id 3 ('dog'), but dataset.num_classes is 3" in message
    assert "set dataset.num_classes to 4, and dataset.eval_class_ids to [1, 3], or" in message


def test_num_classes_of_a_category_without_boxes(folder: Path) -> None:
    """What counts is the class list: validation may have boxes where training has none."""
    content = coco()
    content["categories"].append({"id": 90, "name": "toothbrush"})
    written(folder / "val" / "annotations.json", content)
    with pytest.raises(RequestError, match=r"set dataset.num_classes to 91"):
        check_sources(experiment(folder), "train")


def test_empty_training_set(folder: Path) -> None:
    path = written(folder / "train" / "annotations.json", coco(images=[], annotations=[]))
    with pytest.raises(RequestError, match="the training set is empty") as caught:
        check_sources(experiment(folder), "train")
    assert str(path) in str(caught.value)
    written(path, coco(annotations=[]))
    with pytest.raises(RequestError, match="the training set has no boxes"):
        check_sources(experiment(folder), "train")


def test_empty_validation_set(folder: Path) -> None:
    written(folder / "val" / "annotations.json", coco(images=[], annotations=[]))
    with pytest.raises(RequestError, match="names no images: nothing to score"):
        check_sources(experiment(folder), "train")


def test_same_id_with_two_names(folder: Path) -> None:
    content = coco(categories=[{"id": 1, "name": "dog"}, {"id": 3, "name": "cat"}])
    written(folder / "val" / "annotations.json", content)
    with pytest.raises(RequestError, match=r"category id 1 is 'cat' in .* and 'dog' in .* 1 to 3"):
        check_sources(experiment(folder), "train")


def test_unknown_eval_class_ids(folder: Path) -> None:
    with pytest.raises(RequestError, match=r"eval_class_ids holds \[2\].*1 \(cat\), 3 \(dog\)"):
        check_sources(experiment(folder, "dataset.eval_class_ids=[1, 2]"), "train")


def test_classes_that_do_not_count_are_said(folder: Path) -> None:
    """TAO's form of a spec has eval_class_ids [1], and its evaluate counts all classes."""
    content = coco()
    content["annotations"].append({"image_id": 7, "category_id": 1, "bbox": [0, 0, 4, 5]})
    path = written(folder / "val" / "annotations.json", content)
    said = notes(folder, "dataset.eval_class_ids=[1]")
    assert f"{path}: by dataset.eval_class_ids [1] no score counts 3 (dog); null counts" in said
    alone = experiment(folder, "dataset.eval_class_ids=[1]")
    in_tao = check_sources(alone, "train", Checks(engine="tao"))
    assert not any("eval_class_ids" in note for note in in_tao.notes)
    for every in ("[1, 3]", "null"):
        assert "eval_class_ids" not in notes(folder, f"dataset.eval_class_ids={every}")


def test_one_class_with_two_ids(folder: Path) -> None:
    entry = {"image_id": 7, "category_id": 2, "bbox": [0, 0, 4, 5]}
    content = coco(categories=[{"id": 2, "name": "dog"}], annotations=[entry])
    train, val = (folder / split / "annotations.json" for split in ("train", "val"))
    written(val, content)
    with pytest.raises(RequestError) as caught:
        check_sources(experiment(folder), "train")
    assert str(caught.value) == (
        f"class 'dog' has id 3 in {train} and id 2 in {val}: two ids are two classes to the "
        f"network. To make them one, change in {val} 2 to 3 ('dog')"
    )


def test_a_second_id_of_a_class_without_boxes_is_no_class(folder: Path) -> None:
    """Roboflow's files have one where the group of all classes is named as the only class."""
    for split in ("train", "val"):
        entry = {"image_id": 7, "category_id": 1, "bbox": [0, 0, 4, 5]}
        categories = [{"id": id_, "name": "smoke"} for id_ in (0, 1)]
        content = coco(categories=categories, annotations=[entry])
        written(folder / split / "annotations.json", content)
    sources = check_sources(experiment(folder), "train").sources
    every = [source.annotations for source in (*sources["train"], *sources["val"])]
    assert class_names(every, 2) == {1: "smoke"}
    with pytest.raises(RequestError, match=r"eval_class_ids holds \[0\].*1 \(smoke\)"):
        check_sources(experiment(folder, "dataset.eval_class_ids=[0]"), "train")


def test_a_class_without_any_boxes_keeps_its_first_id(folder: Path) -> None:
    categories = [{"id": 2, "name": "cat"}, {"id": 0, "name": "cat"}]
    content = coco(categories=[*categories, {"id": 1, "name": "dog"}], annotations=[])
    read = read_annotations(written(folder / "a.json", content))
    assert class_names([read], 3) == {1: "dog", 2: "cat"}


def test_two_ids_of_one_class_in_a_file(folder: Path) -> None:
    content = coco(categories=[{"id": 1, "name": "cat"}, {"id": 3, "name": "cat"}])
    content["annotations"].append({"image_id": 7, "category_id": 1, "bbox": [0, 0, 4, 5]})
    path = written(folder / "train" / "annotations.json", content)
    with pytest.raises(RequestError, match=f"class 'cat' has id 1 in {path} and id 3 in {path}"):
        check_sources(experiment(folder), "train")


def with_boxes(folder: Path, split: str, boxes: list[Any], **more: Any) -> Path:
    """Annotations of an image of 120 x 60 and one of unknown size, all boxes in the first."""
    content = coco(
        images=[
            {"id": 7, "file_name": "a.jpg", "width": 120, "height": 60},
            {"id": 9, "file_name": "b.jpg"},
        ],
        annotations=[{"image_id": 7, "category_id": 1, "bbox": box, **more} for box in boxes],
    )
    return written(folder / split / "annotations.json", content)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("boxes", "more", "message"),
    [
        ([[0.1, 0.1, 0.5, 0.5]], {}, "all 1 boxes lie in 0..1"),
        ([[60, 30, 110, 55]], {}, "look like corners"),
        ([[1, 2, 30, 40]], {"iscrowd": 1}, "none of its 1 boxes can be used: 1 crowd .*masks"),
        ([[1, 2, -30, -40]], {}, "none of its 1 boxes can be used: 1 of negative .*corner"),
        ([[1, 2, 0.5, 40]] * 2, {}, "none of its 2 boxes can be used: 2 less than a pixel"),
        ([[500, 2, 9, 9]] * 2, {}, "2 with less than a pixel inside their image. .*another size"),
    ],
)
def test_boxes_that_are_worth_nothing(
    folder: Path, split: str, boxes: list[Any], more: dict[str, Any], message: str
) -> None:
    path = with_boxes(folder, split, boxes, **more)
    with pytest.raises(RequestError, match=message) as caught:
        check_sources(experiment(folder), "train")
    assert f"{path} (dataset.{split}_data_sources)" in str(caught.value)


def test_a_source_without_a_usable_box_is_noted_beside_a_good_one(folder: Path) -> None:
    """One shard of many may hold a single crowd region; that is no reason to stop."""
    path = with_boxes(folder, "shard", [[1, 2, 30, 40]], iscrowd=1)
    for name in ("a.jpg", "b.jpg"):
        written(folder / "shard" / name, "")
    shard = {"image_dir": str(folder / "shard"), "json_file": str(path)}
    both = experiment(folder)
    train = both.dataset.train_data_sources
    assert train is not None
    train.append(type(train[0])(**shard))
    lost = f"{path} (dataset.train_data_sources): none of its 1 boxes can be used: 1 crowd region"
    assert any(note.startswith(lost) for note in check_sources(both, "train").notes)
    with_boxes(folder, "train", [[1, 2, 30, 40]] * 2, iscrowd=1)
    with pytest.raises(RequestError, match=r"none of its 2 boxes .*; .*none of its 1 boxes"):
        check_sources(both, "train")


def notes(folder: Path, *overrides: str, action: str = "train") -> str:
    return "\n".join(check_sources(experiment(folder, *overrides, action=action), action).notes)


def test_what_is_lost_is_counted(folder: Path) -> None:
    with_boxes(folder, "train", [[1, 2, 30, 40]] * 3 + [[1, 2, 0.5, 40], [200, 2, 9, 9]])
    said = notes(folder)
    assert (
        "3 of 5 boxes are trained on; not: 1 less than a pixel wide or high, 1 with less than a "
        "pixel inside their image"
    ) in said
    assert "1 of 2 images have no width and height" in said
    assert "1 of 5 boxes reach more than 1 pixel out of their image" in said


def test_small_boxes_are_counted_at_the_size_of_the_network(folder: Path) -> None:
    with_boxes(folder, "train", [[1, 2, 30, 40], [1, 2, 1.5, 30]])
    assert "less than a pixel wide or high once" not in notes(folder)
    size = "dataset.augmentation.train_spatial_size=[64,64]"
    assert "1 of 2 boxes are less than a pixel wide or high once their image is resized to" in (
        notes(folder, size, "dataset.augmentation.multi_scales=[]")
    )


def test_more_boxes_than_queries_or_scored_detections(folder: Path) -> None:
    with_boxes(folder, "train", [[1, 2, 30, 40]] * 11)
    with_boxes(folder, "val", [[1, 2, 30, 40]] * 101)
    said = notes(folder)
    assert "up to 11 boxes in an image ('a.jpg'), more than model.num_queries 10" in said
    assert "up to 101 boxes in an image ('a.jpg'), but COCO's metrics count 100" in said
    with_boxes(folder, "val", [[1, 2, 30, 40]] * 10)
    assert "COCO's metrics" not in notes(folder, action="evaluate")


def test_nothing_to_score(folder: Path) -> None:
    with_boxes(folder, "val", [])
    with pytest.raises(RequestError, match=r"val_data_sources\): it has no boxes to find"):
        check_sources(experiment(folder), "train")
    with_boxes(folder, "val", [[1, 2, 30, 40]])
    with pytest.raises(RequestError, match=r"it has no boxes of dataset.eval_class_ids to find"):
        check_sources(experiment(folder, "dataset.eval_class_ids=[3]"), "train")


ROTATED, UPSIDE_DOWN = Image.Exif(), Image.Exif()
ROTATED[0x0112], UPSIDE_DOWN[0x0112] = 6, 3


@pytest.mark.parametrize(
    ("size", "exif", "message"),
    [
        ((120, 60), ROTATED, "'a.jpg' is 60 x 120 pixels, but annotated as 120 x 60.*EXIF"),
        ((60, 30), Image.Exif(), "'a.jpg' is 60 x 30 pixels, but annotated as 120 x 60"),
        ((120, 60), UPSIDE_DOWN, None),
    ],
)
def test_sizes_of_files(
    folder: Path, size: tuple[int, int], exif: Image.Exif, message: str | None
) -> None:
    with_boxes(folder, "train", [[1, 2, 30, 40]])
    Image.new("RGB", size).save(folder / "train" / "a.jpg", exif=exif)
    if message is None:
        said = notes(folder)
        assert "1 of 2 images looked into are turned or mirrored by their EXIF orientation" in said
        return
    with pytest.raises(RequestError, match=f"1 of 2 images looked into are wrong: {message}"):
        check_sources(experiment(folder), "train")


def test_an_image_with_two_entries(folder: Path) -> None:
    content = coco()
    content["images"][1]["file_name"] = "a.jpg"
    written(folder / "train" / "annotations.json", content)
    assert "1 of 2 entries of 'images' name a file that another names, too" in notes(folder)


def test_what_evaluate_cannot_skip_is_not_advised(folder: Path) -> None:
    (folder / "val" / "a.jpg").unlink()
    with pytest.raises(RequestError, match="1 of the 2 image files do not exist") as caught:
        check_sources(experiment(folder, action="evaluate"), "evaluate")
    assert "bad_images" not in str(caught.value)


def test_images_that_no_decoder_takes(folder: Path) -> None:
    content = coco()
    content["images"][0] |= {"width": 20_000, "height": 20_000}
    written(folder / "train" / "annotations.json", content)
    with pytest.raises(RequestError, match=r"1 images have more than 178956970 pixels.* 'a\.jpg'"):
        check_sources(experiment(folder), "train")
    checked = check_sources(experiment(folder), "train", Checks(skip_bad_images=True))
    assert any("178956970" in note for note in checked.notes)


def test_a_file_is_read_once_for_several_actions(folder: Path) -> None:
    """In the order of the actions; what `read` returns is used."""
    read: list[Path] = []
    checks = Checks(read=lambda path: read.append(path) or read_annotations(path))
    checked = check_sources(experiment(folder), "train", checks)
    assert read == [folder / split / "annotations.json" for split in ("train", "val")]
    assert [*checked.sources] == ["train", "val"]


def test_all_that_is_wrong_is_said_at_once(folder: Path) -> None:
    (folder / "train" / "a.jpg").unlink()
    written(folder / "val" / "annotations.json", coco(annotations=[]))
    wrong = experiment(folder, "dataset.num_classes=2", "dataset.eval_class_ids=[0]")
    with pytest.raises(BadData) as caught:
        check_sources(wrong, "train", Checks(ranks=2))
    said = {".".join(map(str, one.field)): one.message for one in caught.value.findings}
    assert "set dataset.num_classes to 4" in said["dataset.num_classes"]
    assert "eval_class_ids holds [0]" in said["dataset.eval_class_ids"]
    assert "'a.jpg'" in said["dataset.train_data_sources.0.image_dir"]
    assert "nothing to score" in said["dataset.val_data_sources.json_file"]
    assert "fewer than one batch on every rank" in said["dataset.batch_size"]
    assert str(caught.value).splitlines() == [one.message for one in caught.value.findings]
    corrections = [one.correction for one in caught.value.findings if one.correction]
    assert corrections[0] == {"dataset.num_classes": 4, "dataset.eval_class_ids": [1, 3]}


def test_what_is_staged_later_is_checked_as_far_as_it_is_here(folder: Path) -> None:
    written(folder / "images.tar.gz", "")
    json_file = folder / "train" / "annotations.json"
    for images in (f"{folder}/images.tar.gz", "s3://bucket/images"):
        few, enough = (experiment(folder, f"dataset.num_classes={count}") for count in (3, 4))
        for one in (few, enough):
            train = one.dataset.train_data_sources
            assert train is not None
            train[0] = type(train[0])(image_dir=images, json_file=str(json_file))
        with pytest.raises(BadData, match=r"set dataset\.num_classes to 4"):
            check_sources(few, "train", Checks(staged_later=True))
        (source,) = check_sources(enough, "train", Checks(staged_later=True)).sources["train"]
        assert source.image_dir is None
        train[0] = type(train[0])(image_dir=images, json_file="s3://bucket/a.json")
        assert check_sources(enough, "train", Checks(staged_later=True)).sources["train"] == []


def test_categories_without_an_annotation_are_named(folder: Path) -> None:
    for split in ("train", "val"):
        content = coco()
        content["categories"].insert(0, {"id": 0, "name": "pets"})
        written(folder / split / "annotations.json", content)
    assert "has the categories 0 (pets): nothing is learned or scored of them. Tools" in (
        notes(folder)
    )


def test_what_ms_cocos_own_ids_want(folder: Path) -> None:
    gaps = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    categories = [{"id": n, "name": f"{n}"} for n in range(1, 91) if n not in gaps]
    for split in ("train", "val"):
        written(folder / split / "annotations.json", coco(categories=categories))
    with pytest.raises(RequestError) as caught:
        check_sources(experiment(folder, "dataset.num_classes=80"), "train")
    assert "own ids, dataset.remap_mscoco_category to true and dataset.num_classes to 80" in (
        str(caught.value)
    )
    remapped = ("dataset.num_classes=80", "dataset.remap_mscoco_category=true")
    check_sources(experiment(folder, *remapped), "train")


def test_what_is_right_is_said_by_files_that_agree(folder: Path) -> None:
    """One that counts from 0 where the others count from 1 has no say in it."""
    entry = {"image_id": 7, "category_id": 0, "bbox": [0, 0, 4, 5]}
    names = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    written(folder / "val" / "annotations.json", coco(categories=names, annotations=[entry]))
    with pytest.raises(BadData) as caught:
        check_sources(experiment(folder, "dataset.num_classes=2"), "train")
    assert "change in" in str(caught.value)
    (right,) = [one.correction for one in caught.value.findings if one.correction]
    assert right == {"dataset.num_classes": 4, "dataset.eval_class_ids": [1, 3]}


def test_annotations_with_the_same_id_are_noted(folder: Path) -> None:
    content = coco()
    content["annotations"][1]["id"] = content["annotations"][0]["id"]
    written(folder / "train" / "annotations.json", content)
    assert "1 of 2 annotations have the id of another: each is a box of its own" in notes(folder)


class TestSampling:
    def errors(self, folder: Path, *overrides: str) -> str:
        with pytest.raises(BadData) as error:
            check_sources(experiment(folder, *overrides), "train")
        return str(error.value)

    def test_good_weights_pass(self, folder: Path) -> None:
        check_sources(experiment(folder, "engine.sampling.class_weights={dog: 2, cat: 0}"), "train")

    def test_a_class_that_there_is_not(self, folder: Path) -> None:
        assert self.errors(folder, "engine.sampling.class_weights={dgo: 2}") == (
            "engine.sampling.class_weights has 'dgo'; the training data have the classes 1 (cat), "
            "3 (dog); did you mean 'dog'?"
        )

    def test_nothing_left_to_learn(self, folder: Path) -> None:
        assert "every image that has boxes has weight 0" in self.errors(
            folder, "engine.sampling.class_weights={dog: 0, cat: 0}"
        )
