"""encryption_key: whatever way a key comes, it is out of the spec before anybody sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_files import NEEDED, TRAIN, load, only, problems

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec import dump_spec
from rtdetr_slurm.spec.keys import without_key

MARK = "env:RTDETR_ENCRYPTION_KEY"
NAME = "RTDETR_ENCRYPTION_KEY"


@pytest.mark.parametrize(
    ("text", "overrides", "key"),
    [
        ("encryption_key: hunter2\n", (), "hunter2"),
        ("encryption_key: 'a: b # c'\n", (), "a: b # c"),
        ("", ("encryption_key=hunter2",), "hunter2"),
        ("", ('encryption_key="hunter2"',), "hunter2"),
        ("", ("encryption_key=12345",), "12345"),
        ("", ("encryption_key=a: [b",), "a: [b"),
        ("", ("encryption_key=#1=2",), "#1=2"),
        ("encryption_key: old\n", ("encryption_key=new",), "new"),
        ("encryption_key: file:///k\n", (), "file:///k"),
    ],
)
def test_a_key_is_taken_out(
    tmp_path: Path, text: str, overrides: tuple[str, ...], key: str
) -> None:
    refers = "train.freeze=['${encryption_key}']"
    loaded = load(tmp_path, text + TRAIN, *overrides, action="train")
    assert (loaded.key, loaded.experiment.encryption_key) == (key, MARK)
    assert loaded.source.data["encryption_key"] == MARK
    assert key not in dump_spec(loaded.experiment)
    assert key not in repr(loaded)
    told = only(problems(tmp_path, text + TRAIN, *overrides, refers, action="train"))
    assert MARK in told
    assert key not in told


@pytest.mark.parametrize("value", ["tlt_encode", "nvidia_tlt", "", "null", "???", MARK])
def test_what_is_no_key_stays(tmp_path: Path, value: str) -> None:
    given = f"encryption_key={value}"
    loaded = load(tmp_path, TRAIN, given, action="train")
    assert loaded.key is None
    assert without_key(["train.num_epochs=1", given]) == (("train.num_epochs=1", given), None)
    if value == MARK:
        with pytest.raises(RequestError, match="are to be encrypted, and there is no key; give it"):
            loaded.with_key_of({})
    else:
        assert loaded.with_key_of({}) is loaded
    settled = loaded.with_key_of({NAME: "hunter2"})
    assert (settled.key, settled.experiment.encryption_key) == ("hunter2", MARK)
    assert settled.resolved()["encryption_key"] == MARK


def test_the_spec_counts_more_than_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("of the file\n")
    path.chmod(0o600)
    loaded = load(tmp_path, f"encryption_key: file://{path}\n{TRAIN}", action="train")
    assert loaded.with_key_of({NAME: "of the environment"}).key == "of the file"
    plain = load(tmp_path, TRAIN, action="train")
    assert plain.with_key_of({NAME: f"file://{path}"}).key == "of the file"


def test_a_key_of_the_environment_is_refused_where_the_spec_would_be(tmp_path: Path) -> None:
    needed = [one for one in NEEDED["quantize"] if not one.startswith("quantize.model_path")]
    given = (*needed, "quantize.backend=modelopt.onnx", "quantize.mode=static_ptq")
    extra = ("quantize.model_path=/m.onnx", "quantize.device=cpu", "encryption_key=hunter2")
    told = only(problems(tmp_path, TRAIN, *given, *extra, action="quantize"))
    loaded = load(tmp_path, TRAIN, *given, *extra[:2], action="quantize")
    with pytest.raises(RequestError, match="works on files of its own, unencrypted") as caught:
        loaded.with_key_of({NAME: "hunter2"})
    assert str(caught.value).endswith(told)


def test_a_reference_is_no_key_and_a_number_has_quotes(tmp_path: Path) -> None:
    text = f"encryption_key: ${{model.backbone}}-1\n{TRAIN}"
    line = only(problems(tmp_path, text, action="train"))
    assert "encryption_key: found a reference; allowed: the key itself, env:" in line
    assert "resnet" not in line
    line = only(problems(tmp_path, f"encryption_key: 12\n{TRAIN}", action="train"))
    assert "spec.yaml:1:17: encryption_key: " in line


def test_no_message_quotes_a_key_that_is_given_twice(tmp_path: Path) -> None:
    twice = ("encryption_key=hunter2", "encryption_key=hunter3")
    told = "\n".join(problems(tmp_path, TRAIN, *twice, action="train"))
    assert "given twice" in told
    assert "hunter" not in told


@pytest.mark.parametrize(
    ("action", "override"),
    [
        ("train", "train.pretrained_model_path=/m/rtdetr.TLT"),
        ("train", "model.pretrained_backbone_path=/m/resnet.tlt"),
        ("evaluate", "evaluate.checkpoint=/m/rtdetr.etlt"),
    ],
)
def test_legacy_files_of_tao_are_refused_by_name(
    tmp_path: Path, action: str, override: str
) -> None:
    needed = [one for one in NEEDED.get(action, ()) if one.split("=")[0] != override.split("=")[0]]
    line = only(problems(tmp_path, TRAIN, *needed, override, action=action))
    field, _, value = override.partition("=")
    assert f"{field}: found '{value}'; TAO's encrypted files (.tlt, .etlt) cannot be read" in line
