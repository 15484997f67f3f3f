"""Which tool a data set is of, and what is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from convert_support import converted, write_image, write_text

from rtdetr_slurm.cli.main import main
from rtdetr_slurm.data.convert import FORMS
from rtdetr_slurm.data.convert.convert import _READERS, convert
from rtdetr_slurm.errors import RequestError


def write_set(root: Path) -> None:
    write_image(root / "images/x.jpg")
    write_text(root / "labels/x.txt", "0 0.5 0.5 0.5 0.5\n")
    write_text(root / "classes.txt", "cell\n")


def test_every_form_has_a_reader() -> None:
    assert [*FORMS] == [*_READERS]


def test_images_are_linked_and_a_link_is_followed(tmp_path: Path) -> None:
    write_set(tmp_path / "a")
    real = tmp_path / "elsewhere.jpg"
    (tmp_path / "a/images/x.jpg").rename(real)
    (tmp_path / "a/images/x.jpg").symlink_to(real)
    done, _ = converted(tmp_path / "a")
    written = done.folder / "train/images/x.jpg"
    assert not written.is_symlink()
    assert written.samefile(real)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: write_text(root, "text"), "not clear what this is"),
        (lambda root: write_text(root / "notes.txt", "text"), "not clear what this is"),
        (lambda root: write_text(root / "labels/x.txt", "0 0 0 1 1"), "no image of it"),
    ],
)
def test_what_is_no_data_set_is_refused(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "a")
    with pytest.raises(RequestError, match=message):
        converted(tmp_path / "a")
    assert {path.name for path in tmp_path.iterdir()} <= {"a"}


def test_nothing_is_written_into_the_data_set_and_no_option_is_passed_over(tmp_path: Path) -> None:
    write_set(tmp_path / "a")
    with pytest.raises(RequestError, match="is left as it is"):
        convert(tmp_path / "a", tmp_path / "a/b")
    with pytest.raises(RequestError, match="--images"):
        convert(tmp_path / "a", tmp_path / "b", images=tmp_path)


def test_a_share_is_held_out_by_the_names_of_images(tmp_path: Path) -> None:
    write_set(tmp_path / "a")
    for number in range(40):
        write_image(tmp_path / f"a/images/{number}.jpg")
    done, read = converted(tmp_path / "a", val_share=0.25)
    assert read["train"].num_images + read["val"].num_images == 41
    assert 5 <= read["val"].num_images <= 16
    assert read["val"].categories == read["train"].categories
    held_out = {*read["val"].file_names}
    for number in range(40, 60):
        write_image(tmp_path / f"a/images/{number}.jpg")
    shutil.rmtree(done.folder)
    later = {*converted(tmp_path / "a", val_share=0.25)[1]["val"].file_names}
    assert {name for name in later if name == "x.jpg" or int(name[:-4]) < 40} == held_out


def test_a_share_is_held_out_of_what_is_for_training_alone(tmp_path: Path) -> None:
    write_set(tmp_path / "a")
    for share, message in ((1.5, "allowed is"), (0.001, "none to validate with")):
        with pytest.raises(RequestError, match=message):
            converted(tmp_path / "a", val_share=share)
    for split in ("train", "val"):
        write_image(tmp_path / f"b/images/{split}/x.jpg")
        write_text(tmp_path / f"b/labels/{split}/x.txt", "0 0.5 0.5 0.5 0.5")
    with pytest.raises(RequestError, match="has train, val, and not train alone"):
        converted(tmp_path / "b", val_share=0.5)


def test_names_fit_a_list_of_names(tmp_path: Path) -> None:
    """Line n is class n - 1, whichever ids and names there are."""
    write_set(tmp_path / "a")
    write_text(tmp_path / "a/data.yaml", "names: {1: background, 3: cell}")
    write_text(tmp_path / "a/labels/x.txt", "3 0.5 0.5 0.5 0.5\n")
    done, _ = converted(tmp_path / "a")
    lines = (done.folder / "label_map.txt").read_text().splitlines()
    assert lines == ["unused_0", "background", "unused_2", "cell"]
    write_set(tmp_path / "a")
    write_text(tmp_path / "a/data.yaml", 'names: ["two\\nlines"]')
    with pytest.raises(RequestError, match="is none that a list of names can hold"):
        convert(tmp_path / "a", tmp_path / "b")


def test_the_command_prints_what_it_wrote_and_leaves_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "a")
    write_image(tmp_path / "a/images/y.jpg")
    command = ["data", "convert", str(tmp_path / "a"), "-o", str(tmp_path / "b")]
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["splits"] == {"train": {"images": 2, "boxes": 1}}
    assert document["classes"] == [{"id": 0, "name": "cell", "boxes": 1}]
    assert [change["count"] for change in document["changes"]] == [1]
    assert main(command) == 2
    assert "exists already and is left as it is" in capsys.readouterr().err
    command[-1] = str(tmp_path / "c")
    assert main(command) == 0
    said = capsys.readouterr()
    assert "2 images, 1 boxes" in said.out
    assert "1 × image without a file of labels" in said.out
    assert f"init {tmp_path / 'c'}" in said.err
