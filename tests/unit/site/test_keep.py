"""Settings that worked are written into the profile, and nothing else changes in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.site.keep import keep_env

NEW = {"NCCL_IB_DISABLE": "1"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("name: x  # mine\n", None),
        ("name: x", None),
        ("", None),
        (
            "env:  # let in\n  - HTTPS_PROXY  # ours\n  - A: b  # c\n\n# all else\nname: x\n",
            "env:  # let in\n  - HTTPS_PROXY  # ours\n  - A: b  # c\n"
            '  - NCCL_IB_DISABLE: "1"\n\n# all else\nname: x\n',
        ),
        ("env:\n- A\nname: x\n", 'env:\n- A\n- NCCL_IB_DISABLE: "1"\nname: x\n'),
        (
            "env:\n    A: b\n    C:\nname: x\n",
            'env:\n    A: b\n    C:\n    NCCL_IB_DISABLE: "1"\nname: x\n',
        ),
        ("env: [A, {B: c}]  # d\n", 'env: [A, {B: c}, NCCL_IB_DISABLE: "1"]  # d\n'),
        ("env: {A: b}\n", 'env: {A: b, NCCL_IB_DISABLE: "1"}\n'),
        ("env: []\n", 'env: [NCCL_IB_DISABLE: "1"]\n'),
        ("env: null  # none\nname: x\n", 'env:  # none\n  - NCCL_IB_DISABLE: "1"\nname: x\n'),
        ("env:\nname: x\n", 'env:\n  - NCCL_IB_DISABLE: "1"\nname: x\n'),
        (
            'env:\n  - NCCL_IB_DISABLE: "0"  # why\n  - A\n',
            'env:\n  - NCCL_IB_DISABLE: "1"  # why\n  - A\n',
        ),
        ("env:\n  NCCL_IB_DISABLE: 'no'\n", 'env:\n  NCCL_IB_DISABLE: "1"\n'),
    ],
)
def test_a_profile_keeps_all_else(tmp_path: Path, before: str, after: str | None) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(before)
    path.chmod(0o640)
    copy = keep_env(path, NEW)
    if after is None:
        assert path.read_text().startswith(before)
        assert path.read_text().endswith('env:\n  - NCCL_IB_DISABLE: "1"\n')
    else:
        assert path.read_text() == after
    assert path.stat().st_mode & 0o777 == (0o640 if before else 0o644)
    assert (copy is None) == (not before)
    if copy is not None:
        assert copy.read_text() == before


def test_a_profile_that_is_not_there_is_made(tmp_path: Path) -> None:
    path = tmp_path / "config" / "site.yaml"
    assert keep_env(path, NEW) is None
    assert 'NCCL_IB_DISABLE: "1"' in path.read_text()


def test_earlier_copies_stay(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("name: x\n")
    copies = [keep_env(path, {"NCCL_IB_DISABLE": value}) for value in ("1", "0")]
    assert copies == [tmp_path / "site.yaml.bak-1", tmp_path / "site.yaml.bak-2"]


@pytest.mark.parametrize(
    "text",
    [
        "env: &a\n  - A\nx: *a\n",
        "env: !!map {A: b}\nfoo: 1\n",
        "env:\n  NCCL_IB_DISABLE: >\n    0\n",
        "{name: x}\n",
        "env: [A\n",
        "name: x\n...\n",
    ],
)
def test_what_cannot_be_changed_is_left_and_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(SiteError, match='add under env by hand: NCCL_IB_DISABLE: "1"'):
        keep_env(path, NEW)
    assert path.read_text() == text
    assert [one.name for one in tmp_path.iterdir()] == ["site.yaml"]
