"""What the files of images are called."""

from __future__ import annotations

from image_support import table

from rtdetr_slurm.vision.output_names import name_outputs


def outputs(sources: dict[str, list[str]], *, by_sequence: bool = False) -> list[tuple[str, str]]:
    return [(o.label, o.picture) for o in name_outputs(table(sources), by_sequence=by_sequence)]


def test_names_are_taos() -> None:
    assert outputs({"/data/cam1": ["a.jpg", "b c.PNG"]}) == [
        ("labels/a.txt", "images_annotated/a.jpg"),
        ("labels/b c.txt", "images_annotated/b c.PNG"),
    ]


def test_folders_below_a_source_are_kept() -> None:
    assert outputs({"/data": ["cam1/a.jpg", "cam2/a.jpg"]}) == [
        ("labels/cam1/a.txt", "images_annotated/cam1/a.jpg"),
        ("labels/cam2/a.txt", "images_annotated/cam2/a.jpg"),
    ]


def test_no_two_are_the_same() -> None:
    """In TAO a file of the second folder overwrites that of the first."""
    named = outputs({"/one": ["a.jpg", "a.png", "a_2.jpg"], "/two": ["a.jpg"], "/z.zip": ["a.jpg"]})
    assert [label for label, _ in named] == [
        "labels/a.txt", "labels/a_2.txt", "labels/a_2_2.txt", "labels/a_3.txt", "labels/a_4.txt",
    ]  # fmt: skip
    assert named[1][1] == "images_annotated/a_2.png"
    assert len({*sum(named, ())}) == 10


def test_by_sequence_it_is_the_folder_that_holds_the_image() -> None:
    sources = {
        "/data/cam1": ["a.jpg", "night/a.jpg"],
        "/x/cam1": ["a.jpg"],
        "/p/q.tar.gz": ["b.jpg"],
    }
    assert outputs(sources, by_sequence=True) == [
        ("cam1/labels/a.txt", "cam1/images_annotated/a.jpg"),
        ("night/labels/a.txt", "night/images_annotated/a.jpg"),
        ("cam1/labels/a_2.txt", "cam1/images_annotated/a_2.jpg"),
        ("q/labels/b.txt", "q/images_annotated/b.jpg"),
    ]


def test_what_a_list_names_elsewhere_goes_by_its_whole_path() -> None:
    assert outputs({"/lists": ["/data/cam1/a.jpg", "/data/cam2/a"]}) == [
        ("labels/data/cam1/a.txt", "images_annotated/data/cam1/a.jpg"),
        ("labels/data/cam2/a.txt", "images_annotated/data/cam2/a.jpg"),
    ]
