"""Every compilation of the tests is verified after each stage."""

from __future__ import annotations

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("CHAINRULE_VERIFY", "1")
