"""The README is true: its Python runs, and the commands that it names exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
SHELL = ("bash", "sh", "console", "shell")


@dataclass(frozen=True)
class Block:
    """A fenced block of the README and the line on which its text starts."""

    language: str
    text: str
    line: int


@pytest.fixture(scope="module")
def blocks(root) -> list[Block]:
    text = (root / "README.md").read_text(encoding="utf-8")
    return [
        Block(match[1], match[2], text.count("\n", 0, match.start(2)) + 1)
        for match in FENCE.finditer(text)
    ]


@pytest.fixture(scope="module")
def commands(blocks) -> list[list[str]]:
    """Every command of the README, split as a shell splits it, without variables set before it."""
    found = []
    for block in blocks:
        if block.language in SHELL:
            joined = block.text.replace("\\\n", " ")
            for line in joined.splitlines():
                for command in re.split(r"&&|\|\||;|\|", line.removeprefix("$ ")):
                    words = shlex.split(command, comments=True)
                    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                        words.pop(0)
                    if words:
                        found.append(words)
    return found


def test_the_python_of_the_readme_runs_in_order(blocks, root, tmp_path):
    """Each block is one script; they share a namespace, as a reader at a prompt would."""
    scripts = [(block.line, block.text) for block in blocks if block.language == "python"]
    assert scripts, "the README shows no Python"
    runner = tmp_path / "run_blocks.py"
    runner.write_text(
        f"blocks = {scripts!r}\n"
        "namespace = {'__name__': '__main__'}\n"
        "for line, text in blocks:\n"
        "    exec(compile('\\n' * (line - 1) + text, 'README.md', 'exec'), namespace)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", runner],
        cwd=tmp_path,
        env={**os.environ, "CHAINRULE_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"README.md: {done.stderr}", pytrace=False)


def test_the_extras_of_the_readme_exist(commands, root):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for words in commands:
        if words[0] == "pip" or words[:3] == ["python", "-m", "pip"]:
            for word in words:
                for extras in re.findall(r"\[([\w,-]+)\]", word):
                    missing = set(extras.split(",")) - set(project["optional-dependencies"])
                    assert not missing, words


def test_the_subcommands_of_the_readme_exist(commands, tmp_path):
    subcommands = set()
    for words in commands:
        if words[0] == "chainrule":
            subcommands.add(tuple(words[1:2]))
        elif words[:3] == ["python", "-m", "chainrule"]:
            subcommands.add(tuple(words[3:4]))
    assert subcommands, "the README names no subcommand"
    for subcommand in sorted(subcommands):
        command = [sys.executable, "-m", "chainrule", *subcommand, "--help"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{subcommand}: {done.stderr}"


def test_the_files_of_the_readme_exist(commands, blocks, root):
    for words in commands:
        for word in words:
            if word.endswith(".py") or word.startswith((".ci/", "./", "examples/")):
                assert (root / word).exists(), words
    text = (root / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert Path(root, target).exists(), f"README.md links to {target}"


def test_ci_runs_the_commands_of_the_readme(commands, root):
    assert ["python", "-m", "pip", "install", "-e", ".[test]"] in commands
    assert ["python", "-m", "pytest"] in commands
    ci = (root / ".ci" / "run").read_text(encoding="utf-8")
    assert 'python -m pip install --quiet --disable-pip-version-check -e ".[test]"' in ci
    assert re.search(r"^python -m pytest ", ci, re.MULTILINE)
