"""What `explain` and `profile` say, and the debug ladder on standard error."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim

BATCH = {"x": np.ones((8, 4), np.float32), "y": np.zeros(8, np.int64)}


def training(**options: object) -> cr.TrainingProgram:
    x, y = cr.input("x", ("batch", 4)), cr.input("y", ("batch",), "int64")
    logits = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))(x)
    loss = losses.sparse_categorical_crossentropy(logits, y, from_logits=True)
    return cr.compile_train(loss, optim.SGD(0.1), **options)


def test_explain_names_kernels_updates_memory_and_threads():
    report = training(backend="native").explain(batch=8)
    assert "contract (batch, 8): contract add relu" in report
    assert "weight#1 in place" in report
    assert "updates in place" in report.splitlines()[0]
    assert "bytes for" in report
    assert "threads: 1 (" in report


def test_without_sizes_explain_says_what_it_would_take():
    assert "explain(batch=…)" in training(backend="native").explain()


def test_the_arena_is_told_for_the_sizes_given():
    train = training(backend="native")
    planned = train.executable.plan_bytes(batch=8)
    assert f"memory: {planned:,} bytes" in train.explain(batch=8)
    train.step(**BATCH)
    assert train.executable.peak_bytes >= planned > 0


def test_explain_of_a_function_and_of_the_interpreter():
    x = cr.input("x", (3,))
    assert "1 kernel, 0 barriers" in cr.compile(cr.exp(x) * 2.0, backend="native").explain()
    assert "interprets" in cr.compile(cr.exp(x), backend="numpy").explain()


def refusals(output: cr.Tensor, **options: object) -> str:
    report = cr.compile(output, backend="native", **options).explain()
    return "\n".join(line for line in report.splitlines() if "does not join" in line)


def test_a_reduction_of_a_product_says_why_it_is_a_kernel_of_its_own():
    a, b = cr.input("a", (8, 8)), cr.input("b", (8, 8))
    assert "takes elementwise operators in" in refusals((a @ b).sum(-1))


def test_reductions_over_other_axes_say_so():
    x = cr.exp(cr.input("x", (6, 7)))
    rows = cr.compile({"rows": x.sum(1), "columns": x.sum(0)}, backend="native").explain()
    assert "reduction over other axes" in rows


def test_a_read_at_other_indices_says_so():
    x = cr.exp(cr.input("x", (8, 8)))
    assert "at other indices" in refusals(x + cr.flip(x, 0))


def test_fusion_can_be_switched_off():
    x = cr.input("x", (6, 7))
    assert "fusion is switched off" in refusals(cr.exp(x * 2.0) + cr.tanh(cr.exp(x)), fuse=False)


def test_lines_of_the_user_are_named():
    a = cr.input("a", (8, 8))
    assert "test_explanation.py:" in refusals((a @ a).max(-1))


def test_the_profile_counts_calls_and_rates():
    train = training(backend="native", profile=True)
    for _ in range(3):
        train.step(**BATCH)
    table = train.profile()
    assert "GFLOP/s" in table
    assert "batch = 8, threads = 1" in table
    (costs,) = train.executable.profile.costs().values()
    assert {cost.calls for cost in costs} == {3}
    contraction = next(cost for cost in costs if "contract" in cost.kernel)
    assert contraction.flops == 2 * 8 * 8 * 4
    assert contraction.seconds > 0


def test_without_profiling_it_says_how_to():
    assert "profile=True" in training(backend="native").profile()
    assert "no call" in training(backend="native", profile=True).profile()


# -- the debug ladder -----------------------------------------------------------------------------

SCRIPT = """
import numpy as np
import chainrule as cr
x = cr.input("x", (2, 3))
function = cr.compile(cr.log(cr.exp(x).sum(-1)) * 1.0)
function(x=np.ones((2, 3), np.float32))
"""


def ladder(tmp_path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env={**os.environ, "CHAINRULE_CACHE_DIR": str(tmp_path / "cache"), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr


@pytest.mark.parametrize(
    ("level", "shown", "hidden"),
    [
        ("0", "", "canonicalize"),
        ("1", "machine_code", "GFLOP/s"),
        ("2", "GFLOP/s", "rewrite: "),
        ("3", "rewrite: ", "kernel k0"),
        ("4", "for ", "define "),
        ("5", "define ", ".text"),
        ("6", ".text", "\0"),
    ],
)
def test_each_level_shows_more(tmp_path, level, shown, hidden):
    said = ladder(tmp_path, CHAINRULE_DEBUG=level)
    assert shown in said
    assert hidden not in said


def test_a_dump_holds_every_stage_in_order(tmp_path):
    ladder(tmp_path, CHAINRULE_DUMP=str(tmp_path / "dump"))
    names = sorted(path.name for path in (tmp_path / "dump").iterdir())
    assert names[0] == "00_trace.txt"
    assert [int(name[:2]) for name in names] == list(range(len(names)))
    stages = [name[3:].partition(".")[0] for name in names]
    expected = [
        "trace",
        "stabilize",
        "legalize",
        "fuse",
        "order",
        "lower",
        "plan_memory",
        "program",
    ]
    assert [stage for stage in dict.fromkeys(stages) if stage in expected] == expected
    assert {path.suffix for path in (tmp_path / "dump").iterdir()} == {".txt", ".ll", ".s"}
    assert all(path.stat().st_size for path in (tmp_path / "dump").glob("*.[ls]*"))


def test_a_second_program_is_dumped_beside_the_first(tmp_path):
    x = cr.input("x", (3,))
    for output in (cr.exp(x), cr.tanh(x)):
        cr.compile(output, backend="native", dump=tmp_path / "dump")
    assert (tmp_path / "dump" / "00_trace.txt").read_text().count("exp(")
    assert (tmp_path / "dump" / "program_2" / "00_trace.txt").read_text().count("tanh(")


def test_tests_verify_every_stage():
    from chainrule.compiler.options import options_from_environment

    assert options_from_environment().verify


def test_a_bad_number_in_the_environment_is_named(monkeypatch):
    from chainrule.compiler.options import options_from_environment

    monkeypatch.setenv("CHAINRULE_DEBUG", "much")
    with pytest.raises(ValueError, match="CHAINRULE_DEBUG must be a whole number, not 'much'"):
        options_from_environment()
