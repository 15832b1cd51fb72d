"""What does not land: notes to oneself, dead code, a developer's paths, files without a subject."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

MAX_LINES = 900  # about 600 is the guide
TEXT = {".py", ".md", ".toml", ".json", ".yml", ".yaml", ".txt", ".h", ".c", ".sh", ""}
SKIPPED_DIRECTORIES = {".git", "__pycache__", "build", "dist", "venv", "out", "data"}

# Written in pieces, so that this file does not hold what it looks for.
NOTES = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.])/(ho" r"me|ro" r"ot|Use" r"rs|wo" r"rk)/\w")
SUBJECTLESS = {"utils", "util", "helpers", "helper", "common", "misc"}
# What starts a line of code and seldom a sentence that also parses as Python.
CODE_LINE = re.compile(
    r"(def \w+\(|class \w+[(:]|return\b|import \w|from \w[\w.]* import |raise \w|assert \w|del \w"
    r"|@\w+|print\(|(if|for|while|with|elif) .+:$|(else|try|finally):$|self\.\w+)"
)


def text_files(root: Path) -> Iterator[Path]:
    for path in sorted(root.iterdir()):
        if path.is_dir():
            hidden = path.name.startswith(".") and path.name != ".ci"
            egg = path.name.endswith(".egg-info")
            if not hidden and not egg and path.name not in SKIPPED_DIRECTORIES:
                yield from text_files(path)
        elif path.suffix in TEXT:
            yield path


def comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("#").strip()


def is_commented_out_code(comment: str) -> bool:
    if not CODE_LINE.match(comment):
        return False
    opens_block = comment.endswith(":")
    if comment.startswith("@"):
        comment += "\ndef f(): pass"
    elif comment.startswith("elif"):
        comment = f"if x: pass\n{comment} pass"
    elif comment in ("else:", "finally:") or comment == "try:":
        return True
    elif opens_block:
        comment += " pass"
    try:
        ast.parse(comment)
    except SyntaxError:
        return False
    return True


def fail_with(lines: list[str]) -> None:
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)


@pytest.mark.parametrize(
    ("pattern", "what"),
    [(NOTES, "a note to oneself"), (MACHINE_PATHS, "a path of one machine")],
)
def test_no_file_contains(root, pattern, what):
    fail_with(
        [
            f"{path.relative_to(root)}:{number}: {what}: {line.strip()}"
            for path in text_files(root)
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            if pattern.search(line)
        ]
    )


def test_no_commented_out_code(root):
    fail_with(
        [
            f"{path.relative_to(root)}:{number}: commented-out code: {comment}"
            for path in text_files(root)
            if path.suffix == ".py"
            for number, comment in comments(path.read_text(encoding="utf-8"))
            if is_commented_out_code(comment)
        ]
    )


def test_files_are_short_enough_to_read(root):
    fail_with(
        [
            f"{path.relative_to(root)}: {count} lines; split it by subject"
            for path in text_files(root)
            if path.suffix == ".py"
            and (count := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
        ]
    )


def test_a_file_name_states_its_subject(root):
    fail_with(
        [
            f"{path.relative_to(root)}: say what is {path.stem}"
            for path in text_files(root)
            if path.suffix == ".py" and path.stem in SUBJECTLESS
        ]
    )


@pytest.mark.parametrize(
    "comment",
    ["return x", "import os", "for i in range(3):", "self.x = 1", "print(x)", "@cache", "else:"],
)
def test_code_in_a_comment_is_recognised(comment):
    assert is_commented_out_code(comment)


@pytest.mark.parametrize(
    "comment",
    [
        "return early: nothing is live",
        "x*1 -> x",
        "y = a*x + b, the affine case",
        "if the batch is symbolic, the loop is not unrolled",
        "import order matters here",
        "14x32: no spills",
    ],
)
def test_prose_in_a_comment_is_spared(comment):
    assert not is_commented_out_code(comment)
