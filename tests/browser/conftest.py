"""The browser: Debian's Chromium, installed where it is missing, as root on Debian; elsewhere the
tests are skipped with the reason (the suite's own conftest makes a skip a failure in CI)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.harness import install, machine

from .chromium import PACKAGE, Chromium, chromium


@pytest.fixture(scope="session")
def installed() -> None:
    reason = machine.why_not()
    if reason:
        pytest.skip(reason)
    install.install_packages([PACKAGE])


@pytest.fixture
def browser(installed: None) -> Iterator[Chromium]:
    with chromium() as opened:
        yield opened
