"""The command line: what it prints, its exit codes, and one clear line where it fails."""

from __future__ import annotations

import subprocess
import sys

import pytest

import chainrule as cr
from chainrule.__main__ import main
from chainrule.frontend.commands import demo, verify

MODEL = """
import chainrule as cr
from chainrule import losses, nn, optim

x = cr.input("x", ("batch", 3))
y = cr.input("y", ("batch",), dtype="int64")
logits = nn.Linear(3, 2)(x)
loss = losses.sparse_categorical_crossentropy(logits, y, from_logits=True)
train = cr.compile_train(loss, optim.SGD(0.1), backend="numpy")
number = 3
"""


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "a_users_model.py"
    path.write_text(MODEL)
    return path


def test_alone_it_prints_help(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    for command in ("demo", "info", "verify", "bench", "inspect"):
        assert f"    {command} " in said


def test_the_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"chainrule {cr.__version__}\n"


def test_an_unknown_command_ends_with_2(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["dance"])
    assert ended.value.code == 2
    assert "dance" in capsys.readouterr().err


def test_help_is_light(tmp_path):
    code = (
        "import sys; from chainrule.__main__ import main; main([]);"
        "print([m for m in ('sympy', 'llvmlite', 'rich', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_bench_passes_its_arguments_on(capsys):
    assert main(["bench", "--list"]) == 0
    assert "mlp" in capsys.readouterr().out.split()


# -- info -----------------------------------------------------------------------------------------


def test_info_tells_versions_vectors_cache_and_environment(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(tmp_path / "objects"))
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    lines = dict(line.split(maxsplit=1) for line in said.splitlines() if " " in line)
    assert said.splitlines()[0].startswith("chainrule ")
    assert "LLVM" in lines["llvmlite"]
    assert "float32" in lines["vectors"]
    assert f"{tmp_path / 'objects'}: 0 objects" in lines["cache"]
    assert lines["CHAINRULE_CACHE_DIR"] == str(tmp_path / "objects")
    assert lines["CHAINRULE_THREADS"].startswith("not set")
    assert {"[demo]", "[onnx]", "[torch]"} <= set(lines)


# -- verify ---------------------------------------------------------------------------------------


def test_verify_of_built_in_subjects(capsys):
    assert main(["verify", "--only", "Tanh", "--order", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("activation Tanh  ok")
    assert main(["verify", "--only", "nothing like it"]) == 2


@pytest.mark.slow
def test_every_built_in_subject_is_right(capsys):
    assert main(["verify"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(verify.SUBJECTS)


def test_verify_of_a_users_file(capsys, model_file):
    assert main(["verify", f"{model_file}:loss"]) == 0
    assert "differences" in capsys.readouterr().out


def test_verify_ends_with_1_where_something_is_wrong(capsys, monkeypatch):
    from chainrule.frontend import verification

    right = verification.grad
    monkeypatch.setattr(verification, "grad", lambda *a: [g * 1.01 for g in right(*a)])
    assert main(["verify", "--only", "Tanh", "--order", "1"]) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("loss", "not of the form file.py:name"),
        ("missing.py:loss", "there is no file missing.py"),
        ("{model}:nothing", "defines no 'nothing'; its tensors: x, y, logits, loss"),
        ("{model}:number", "is a int; a tensor, or a dict of tensors, is wanted"),
    ],
)
def test_a_bad_target_is_one_clear_line(capsys, model_file, target, message):
    assert main(["verify", target.format(model=model_file)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("chainrule verify: ")
    assert message in said.err
    assert said.err.count("\n") == 1


def test_debug_shows_the_traceback():
    with pytest.raises(Exception, match="there is no file"):
        main(["verify", "--debug", "missing.py:loss"])


# -- inspect --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("0", "loss = "),
        ("1", 'program "train_step"'),
        ("2", 'program "train_step"'),
        ("3", "in place"),
        ("4", "kernel k0"),
        ("5", "define "),
        ("6", ".text"),
    ],
)
def test_inspect_shows_the_level(capsys, level, expected):
    assert main(["inspect", "--level", level, "--only"]) == 0
    said = capsys.readouterr().out
    assert expected in said
    assert said.count("== ") >= 1


def test_inspect_shows_all_levels_up_to_one(capsys):
    assert main(["inspect", "--level", "2"]) == 0
    headings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("== ")]
    assert headings == ["== mathematics", "== trace", "== graph before scheduling"]


@pytest.mark.parametrize("name", ["loss", "train"])
def test_inspect_of_a_users_file(capsys, model_file, name):
    assert main(["inspect", f"{model_file}:{name}"]) == 0
    assert "kernel 0" in capsys.readouterr().out


# -- demo -----------------------------------------------------------------------------------------


def test_a_short_demo(capsys, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(demo, "time_steps", lambda *_: (1e-5, 1e-3))
    monkeypatch.setattr(demo, "is_machine_busy", lambda: False)
    assert main(["demo", "--epochs", "2", "--width", "16"]) == 0
    said = capsys.readouterr().out
    for part in (
        "∂loss/∂weight",
        "epoch  2/2",
        "test accuracy",
        "kernels",
        "100.0×",
        "compiled in",
    ):
        assert part in said


@pytest.mark.slow
def test_the_demo_reaches_its_accuracy(capsys):
    pytest.importorskip("sklearn")
    assert main(["demo"]) == 0
    line = next(s for s in capsys.readouterr().out.splitlines() if "test accuracy" in s)
    assert float(line.split()[2]) >= 97.0


def test_the_demo_without_scikit_learn_names_the_extra(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert main(["demo"]) == 2
    said = capsys.readouterr().err
    assert 'pip install "chainrule[demo]"' in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--epochs", "0"], ["--width", "0"]])
def test_the_demo_refuses_nonsense(capsys, arguments):
    pytest.importorskip("sklearn")
    assert main(["demo", *arguments]) == 2
    assert "at least 1" in capsys.readouterr().err
