"""Every compilation of the tests is verified after each stage; an option rewrites golden files."""

from __future__ import annotations

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write tests/golden/*.txt instead of comparing"
    )


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("CHAINRULE_VERIFY", "1")
