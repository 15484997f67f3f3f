"""The command line in TAO's form."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_support import error_of

from rtdetr_slurm.actions import DEPLOY, ENGINE
from rtdetr_slurm.engine.process.arguments import DeployOptions, parse
from rtdetr_slurm.errors import RequestError


class TestArguments:
    def test_in_any_order(self) -> None:
        expected = parse(["train", "-e", "s.yaml", "a=1", "b.c=2", "--bad-images", "skip"], ENGINE)
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
                ],
                ENGINE,
            )
            == expected
        )
        assert parse(expected.command_line(), ENGINE) == expected
        assert expected.overrides == ("a=1", "b.c=2")

    def test_costs_are_what_a_training_reports(self) -> None:
        parsed = parse(["distill", "-e", "s.yaml", "--costs", "latency_ms,parameters"], ENGINE)
        assert parsed.costs == ("latency_ms", "parameters")
        assert parse(parsed.command_line(), ENGINE) == parsed
        with pytest.raises(RequestError, match="--costs: evaluate reports none"):
            parse(["evaluate", "-e", "s.yaml", "--costs", "parameters"], ENGINE)

    def test_a_value_with_spaces_and_quotes_is_one(self) -> None:
        """TAO joins the overrides and takes them apart at spaces again."""
        value = """results_dir='/data/a  b/"c" $d'"""
        parsed = parse(["train", "-e", "my spec.yaml", value], ENGINE)
        assert parsed.overrides == (value,)
        assert parse(parsed.command_line(), ENGINE) == parsed

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
        parsed = parse(["train", "-e", "s.yaml", *flags, "a=1"], ENGINE)
        assert parsed.overrides == ("a=1", override)
        assert parse(parsed.command_line(), ENGINE) == parsed

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

    def test_the_deploy_program(self) -> None:
        """TAO's deploy command calls two of its actions as the training program calls others."""
        options = DeployOptions("onnxruntime", 0.25, "8.9")
        words = ["evaluate", "-e", "s.yaml", "a=1", *options.command_line()]
        parsed = parse(words, DEPLOY)
        assert (parsed.action, parsed.deploy) == ("trt_evaluate", options)
        assert parse(parsed.command_line(), DEPLOY) == parsed
        assert parse(["gen_trt_engine", "-e", "s.yaml"], DEPLOY).deploy == DeployOptions()
        with pytest.raises(RequestError, match="train is no deploy action: it belongs to rtdetr,"):
            parse(["train", "-e", "s.yaml"], DEPLOY)

    @pytest.mark.parametrize("points", ["nan", "-1", "101", "much"])
    def test_points_that_are_none(self, points: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            parse(["evaluate", "-e", "s.yaml", f"--max-map-drop={points}"], DEPLOY)
        assert f"found '{points}'; allowed: 0..100" in capsys.readouterr().err

    def test_wrong_spec_is_a_wrong_request(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "spec.yaml"
        path.write_text("train:\n  num_epocs: 3\n")
        code, error = error_of(capsys, "train", "-e", str(path))
        assert code == 2
        assert "num_epocs" in error
        assert "num_epochs" in error
