"""All examples alike: listed, documented, runnable, and the same on both backends."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.compiler.ir import ops
from chainrule.frontend.state import Variable, variable_of

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
#: A row of the table in examples/README.md: network, file, data, metric, seconds.
ROW = re.compile(r"^\| [^|]+ \| \[(\w+)\.py\]\(\1\.py\)(?: \| [^|]+){2} \| \d+ \|$", re.MULTILINE)
SIZES = {"time": 40}  # of symbolic axes; 6 for others


def has_build(name: str) -> bool:
    tree = ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == "build" for node in tree.body)


def tensors_of(namespace: object) -> dict[str, cr.Tensor]:
    """The tensors that ``build`` returned, those of updates included, without variables."""

    def items() -> Iterator[tuple[str, object]]:
        for name, value in vars(namespace).items():
            if isinstance(value, Mapping):
                yield from ((f"{name}{i}", v) for i, v in enumerate(value.values()))
            else:
                yield name, value

    return {
        name: value
        for name, value in items()
        if isinstance(value, cr.Tensor) and not isinstance(value, Variable)
    }


def arrays_for(program) -> dict[str, np.ndarray]:
    """Random arrays for the inputs; integers are 0 and 1, which any label or index may be."""
    rng = np.random.default_rng(0)

    def draw(node):
        shape = tuple(dim if isinstance(dim, int) else SIZES.get(str(dim), 6) for dim in node.shape)
        if node.dtype.startswith("int"):
            return rng.integers(0, 2, shape)
        return rng.uniform(0.1, 1.0, shape).astype(node.dtype)

    return {n.op.label: draw(n) for n in program.inputs() if isinstance(n.op, ops.Input)}


#: Networks that an example trains beside the one that ``build()`` returns.
VARIANTS = [
    ("autoencoder", {"code": 32, "noise": 0.3}),
    ("curvature_penalty", {"slope_weight": 2e-4, "curvature_weight": 2e-5}),
    ("forecast", {"layer": nn.GRU}),
    ("graph_convolution", {"use_edges": False}),
    ("recommender", {"kind": "biases"}),
    ("recommender", {"kind": "deep"}),
    ("siamese", {"kind": "contrastive"}),
    ("vae", {"beta": 4.0}),
]


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in NAMES if has_build(name)), *VARIANTS]
)
def test_backends_agree_on_every_output_and_gradient(example, name, options):
    cr.manual_seed(1)
    outputs = tensors_of(example(name).build(**options))
    assert outputs
    found = {}
    for loss in [n for n in outputs if n.endswith("loss")]:
        states = cr.compile(outputs[loss], backend="numpy").program.states()
        trained = [variable_of(node) for node in states if node.op.role == "parameter"]
        gradients = cr.grad(outputs[loss], trained)
        outputs |= {f"{loss} by {v.name} {i}": gradients[i] for i, v in enumerate(trained)}
    for backend in ("numpy", "native"):
        function = cr.compile(outputs, backend=backend, seed=2)
        found[backend] = function(**arrays_for(function.program))
    for output, reference in found["numpy"].items():
        assert np.isfinite(reference).all(), output
        scale = max(float(np.abs(reference).max(initial=0.0)), 1e-2)  # of a gradient of zero
        np.testing.assert_allclose(
            found["native"][output], reference, rtol=1e-4, atol=2e-5 * scale, err_msg=output
        )


def test_every_example_is_listed_with_its_result():
    listed = ROW.findall((EXAMPLES / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_example_says_what_it_is_and_what_to_expect(name):
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    text = ast.get_docstring(tree) or ""
    assert "Expect:" in text and "Learns:" in text and re.search(r"\b(19|20)\d\d\b", text)
    assert len(source.splitlines()) <= 200, "an example is read at one sitting"
    undocumented = [
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not ast.get_docstring(node)
    ]
    assert not undocumented


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs_from_the_command_line(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{name}.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d\.\d", done.stdout.splitlines()[-1]), "no metric in the last line"
