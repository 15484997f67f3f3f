"""The command line in TAO's form."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_support import error_of

from rtdetr_slurm.engine.process.arguments import parse


class TestArguments:
    def test_in_any_order(self) -> None:
        expected = parse(["train", "-e", "s.yaml", "a=1", "b.c=2", "--bad-images", "skip"])
        assert (
            parse(
                [
                    "train",
                    "a=1",
                    "--experiment_spec_file",
                    "s.yaml",
                    "--bad-images",
                    "skip",
                    "b.c=2",
                ]
            )
            == expected
        )
        assert parse(expected.command_line()) == expected
        assert expected.overrides == ("a=1", "b.c=2")

    def test_a_value_with_spaces_and_quotes_is_one(self) -> None:
        """TAO joins the overrides and takes them apart at spaces again."""
        value = """results_dir='/data/a  b/"c" $d'"""
        parsed = parse(["train", "-e", "my spec.yaml", value])
        assert parsed.overrides == (value,)
        assert parse(parsed.command_line()) == parsed

    @pytest.mark.parametrize(
        ("flags", "override"),
        [
            (["-r", "/out"], 'results_dir="/out"'),
            (["--results_dir", "12"], 'results_dir="12"'),
            (["-k", "tlt_encode"], 'encryption_key="tlt_encode"'),
            (["--gpus", "2"], "num_gpus=2"),
        ],
    )
    def test_taos_flags_are_overrides(self, flags: list[str], override: str) -> None:
        parsed = parse(["train", "-e", "s.yaml", *flags, "a=1"])
        assert parsed.overrides == ("a=1", override)
        assert parse(parsed.command_line()) == parsed

    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            (["gen_trt_engine", "-e", "s.yaml"], "gen_trt_engine is a deploy action"),
            (["trian", "-e", "s.yaml"], "no action 'trian'; allowed: train, evaluate"),
            (["train"], "rtdetr train needs a spec file: -e FILE"),
            (["train", "-e", "s.yaml", "num_gpus"], "unexpected argument 'num_gpus'"),
        ],
    )
    def test_refused(
        self, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
    ) -> None:
        code, error = error_of(capsys, *argv)
        assert code == 2
        assert message in error
        assert "Traceback" not in error

    def test_wrong_spec_is_a_wrong_request(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "spec.yaml"
        path.write_text("train:\n  num_epocs: 3\n")
        code, error = error_of(capsys, "train", "-e", str(path))
        assert code == 2
        assert "num_epocs" in error
        assert "num_epochs" in error
