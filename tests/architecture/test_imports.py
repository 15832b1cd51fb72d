"""Who may import whom: the layers, the stages of the compiler, and each library's own room."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable, Iterator

import pytest

# -- 1. layers ------------------------------------------------------------------------------------

# Numeric code that is written once and runs over LLVM vectors and over NumPy arrays alike.
LANES = ("compiler.loops.lanes", "compiler.loops.math")
LAYERS: dict[str, tuple[str, ...]] = {
    "compiler": ("compiler",),
    "runtime": (
        "runtime",
        "compiler.ir",
        "compiler.loops.ir",
        "compiler.artifact",
        "compiler.options",
        "compiler.errors",
        *LANES,
    ),
    "frontend": ("frontend", "compiler", "runtime"),
    "benchmarks": ("", "compiler", "runtime", "frontend", "benchmarks"),
    "": ("", "compiler", "runtime", "frontend", "benchmarks"),
}

# -- 2. stages ------------------------------------------------------------------------------------

# Outputs of stages: plain data, visible to the later stages. Their functions are not.
STAGE_DATA = ("compiler.schedule.plan", "compiler.loops.ir")
# Vocabulary of the whole compiler, which itself sees only the graph, data and each other.
SHARED = ("compiler.errors", "compiler.options", "compiler.artifact", "compiler.passes")
STAGES: dict[str, tuple[str, ...]] = {
    "compiler.ir": ("compiler.ir", "compiler.errors", "compiler.options"),
    "compiler.analysis": ("compiler.analysis", "compiler.ir", *SHARED),
    "compiler.autodiff": ("compiler.autodiff", "compiler.ir", "compiler.analysis", *SHARED),
    "compiler.rewrites": ("compiler.rewrites", "compiler.ir", "compiler.analysis", *SHARED),
    "compiler.schedule": ("compiler.schedule", "compiler.ir", "compiler.analysis", *SHARED),
    "compiler.loops": (
        "compiler.loops",
        "compiler.schedule.plan",
        "compiler.ir",
        "compiler.analysis",
        *SHARED,
    ),
    "compiler.backends": (
        "compiler.backends",
        "compiler.loops.ir",
        *LANES,
        "compiler.schedule.plan",
        "compiler.ir",
        "compiler.analysis",
        *SHARED,
    ),
    **{name: ("compiler.ir", *STAGE_DATA, *SHARED) for name in SHARED},
    "compiler.pipeline": ("compiler",),
    "compiler.graph_stages": ("compiler",),
}

# -- 3. rooms -------------------------------------------------------------------------------------

# Where a library may be imported; a library that is not listed here may be imported anywhere.
ROOMS: dict[str, tuple[str, ...]] = {
    "sympy": (
        "compiler.autodiff.expansion",
        "compiler.autodiff.formulas",
        "compiler.autodiff.symbolic",
        "frontend.formula",
        "frontend.latex",
    ),
    "mpmath": ("compiler.autodiff.expansion",),  # comes with SymPy
    "networkx": ("compiler.analysis",),
    "llvmlite": (
        "compiler.backends",
        "runtime.cpu_jit",
        "runtime.aot",
        "runtime.cache",
        "benchmarks",
    ),
    "cuda": ("runtime.cuda",),
    "safetensors": ("runtime", "frontend"),
    "onnx": ("frontend",),
    "sklearn": ("frontend", "__main__", "benchmarks"),
    "matplotlib": ("frontend", "__main__"),
    "graphviz": ("frontend", "__main__"),
    "mpi4py": ("runtime", "frontend"),
    "torch": ("benchmarks.peers",),
    "jax": ("benchmarks.peers",),
    "optax": ("benchmarks.peers",),
}
EAGER = {"numpy"}
# May be imported inside the function that needs them.
LAZY = {*ROOMS, "rich", "ml_dtypes", "opt_einsum", "platformdirs"}
# Extras are never needed by `import chainrule`, nor by any module's import.
EXTRAS = {"sklearn", "matplotlib", "graphviz", "onnx", "cuda", "mpi4py", "torch", "jax", "optax"}

# -- 4. the environment ---------------------------------------------------------------------------

READS_ENVIRONMENT = ("compiler.options", "benchmarks.harness")


def within(name: str, places: tuple[str, ...]) -> bool:
    """Whether ``name`` is one of ``places`` or lies inside one ('' stands for the root alone)."""
    return any(name == place or (place and name.startswith(place + ".")) for place in places)


def report(violations: Iterable[str]) -> None:
    if lines := list(violations):
        pytest.fail("\n".join(lines), pytrace=False)


def test_the_layers_import_downwards_only(sources):
    report(
        f"{module.at(found.line)}: {module.area or 'the root'} may not import {found.target!r}"
        for name, module in sources.modules.items()
        for found in sources.imports[name]
        if found.ours and not within(found.target, LAYERS[module.area])
    )


def test_a_stage_sees_the_graph_and_data_but_no_other_stage(sources):
    lines = []
    for name, module in sources.modules.items():
        if module.area != "compiler" or name == "compiler":
            continue
        stage = next((s for s in STAGES if within(name, (s,))), None)
        if stage is None:
            lines.append(f"{module.at(1)}: {name} belongs to no stage; give it one in STAGES")
            continue
        lines += [
            f"{module.at(found.line)}: {stage} may not see {found.target}"
            for found in sources.imports[name]
            if found.ours and not within(found.target, STAGES[stage])
        ]
    report(lines)


def test_only_the_frontend_and_the_command_line_see_the_pipeline(sources):
    report(
        f"{module.at(found.line)}: only the frontend drives the pipeline"
        for name, module in sources.modules.items()
        for found in sources.imports[name]
        if found.ours
        and found.target == "compiler.pipeline"
        and module.area not in ("frontend", "")
        and name != "compiler.pipeline"
    )


def test_a_package_inside_the_compiler_imports_nothing_of_its_own(sources):
    # Else `runtime -> compiler.loops.ir` would load the lowering by way of loops/__init__.py.
    report(
        f"{module.at(found.line)}: {name}/__init__.py must not import {found.target}"
        for name, module in sources.modules.items()
        if module.is_package and module.area == "compiler" and not within(name, ("compiler.ir",))
        for found in sources.imports[name]
        if found.ours and not within(found.target, (name,) if name in LEAF_PACKAGES else ())
    )


# Packages that re-export their own modules: nobody outside the stage imports from inside them.
LEAF_PACKAGES = ("compiler.backends.microkernels",)


def test_libraries_stay_in_their_rooms(sources):
    report(
        f"{module.at(found.line)}: {top} belongs in {', '.join(ROOMS[top])}"
        for name, module in sources.modules.items()
        for found in sources.imports[name]
        if not found.ours
        and (top := found.target.split(".")[0]) in ROOMS
        and not within(name, ROOMS[top])
    )


def test_every_library_is_known(sources):
    known = EAGER | LAZY | set(sys.stdlib_module_names)
    report(
        f"{module.at(found.line)}: {found.target} is not a declared dependency"
        for name, module in sources.modules.items()
        for found in sources.imports[name]
        if not found.ours and not found.relative and found.target.split(".")[0] not in known
    )


def test_imports_inside_functions_load_heavy_libraries_on_use(sources):
    """A library, or a module of ours that needs one; never to dodge a circle (see below)."""
    heavy = {
        name
        for name, imports in sources.imports.items()
        if any(not i.ours and not i.in_function and i.target.split(".")[0] in LAZY for i in imports)
    }
    grown = True
    while grown:  # a module that needs a heavy one at its top is heavy too
        more = {
            name
            for name, imports in sources.imports.items()
            if any(i.ours and not i.in_function and i.target in heavy for i in imports)
        }
        grown = not more <= heavy
        heavy |= more
    report(
        f"{module.at(found.line)}: {found.target or 'chainrule'} must be imported at the top"
        for name, module in sources.modules.items()
        for found in sources.imports[name]
        if found.in_function
        and (found.target not in heavy if found.ours else found.target.split(".")[0] not in LAZY)
        and not (name == "benchmarks.peers.chainrule_peer" and not found.relative)
    )


def test_extras_are_imported_inside_functions(sources):
    report(
        f"{module.at(found.line)}: {found.target} is an extra; import it where it is used"
        for name, module in sources.modules.items()
        for found in sources.imports[name]
        if not found.in_function and not found.ours and found.target.split(".")[0] in EXTRAS
    )


def test_the_package_imports_itself_relatively(sources):
    report(
        f"{module.at(found.line)}: write a relative import"
        for name, module in sources.modules.items()
        for found in sources.imports[name]
        if found.ours and not found.relative and module.area != "benchmarks"
    )


def test_benchmarks_are_relative_among_themselves(sources):
    # `python -m benchmarks` and `chainrule.benchmarks` are the same files under two names.
    report(
        f"{module.at(found.line)}: write a relative import"
        for name, module in sources.modules.items()
        if module.area == "benchmarks"
        for found in sources.imports[name]
        if not found.relative and within(found.target, ("benchmarks",))
    )


def test_no_module_imports_itself_in_a_circle(sources):
    edges = {
        name: {
            found.target
            for found in sources.imports[name]
            if found.ours and found.target in sources.modules
        }
        for name in sources.modules
    }
    report(" -> ".join(circle) for circle in circles(edges))


def circles(edges: dict[str, set[str]]) -> Iterator[list[str]]:
    """The circles that a depth-first walk meets, one for each edge that closes one."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> Iterator[list[str]]:
        if name in path:
            yield [*path[path.index(name) :], name]
            return
        if name in done:
            return
        for target in sorted(edges[name]):
            # a package's own __init__ is loaded before its modules; that is no circle
            if not within(name, (target,)) or target == name:
                yield from visit(target, [*path, name])
        done.add(name)

    for name in sorted(edges):
        yield from visit(name, [])


def environment_uses(tree: ast.AST) -> Iterator[int]:
    names = {"environ", "environb", "getenv", "putenv", "unsetenv"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in names:
            if isinstance(node.value, ast.Name) and node.value.id == "os":
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (node.lineno for alias in node.names if alias.name in names)


def dynamic_imports(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            if name in ("import_module", "__import__"):
                yield node.lineno


def unsafe_calls(tree: ast.AST) -> Iterator[int]:
    """Calls that run their argument as code: no input, model file or formula may reach one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {a.name for a in node.names} if isinstance(node, ast.Import) else {node.module}
            if names & {"pickle", "marshal", "shelve", "dill"}:
                yield node.lineno
        elif isinstance(node, ast.Call):
            keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            called = node.func
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            builtin = isinstance(called, ast.Name) and name in ("eval", "exec")
            parses = name == "parse_expr" or (name == "sympify" and not keywords.get("strict"))
            if builtin or parses or keywords.get("allow_pickle"):
                yield node.lineno


@pytest.mark.parametrize(
    ("find", "allowed", "message"),
    [
        (environment_uses, READS_ENVIRONMENT, "the environment is read in compiler/options.py"),
        (dynamic_imports, (), "import by statement, so that these tests can see it"),
        (unsafe_calls, (), "runs data as code"),
    ],
)
def test_forbidden_constructs(
    sources,
    find: Callable[[ast.AST], Iterator[int]],
    allowed: tuple[str, ...],
    message: str,
):
    report(
        f"{module.at(line)}: {message}"
        for name, module in sources.modules.items()
        if name not in allowed
        for line in find(module.tree)
    )


# -- the rules themselves, on sources with known faults -------------------------------------------


@pytest.mark.parametrize(
    ("find", "code"),
    [
        (environment_uses, "import os\nx = os.environ['A']"),
        (environment_uses, "from os import getenv"),
        (dynamic_imports, "import importlib\nimportlib.import_module('torch')"),
        (unsafe_calls, "eval('1')"),
        (unsafe_calls, "sympy.sympify(text)"),
        (unsafe_calls, "np.load(path, allow_pickle=True)"),
        (unsafe_calls, "import pickle"),
    ],
)
def test_the_finders_find(find, code):
    assert list(find(ast.parse(code)))


@pytest.mark.parametrize("code", ["model.eval()", "sympify(1, strict=True)", "np.load(path)"])
def test_the_finders_spare_the_innocent(code):
    assert not list(unsafe_calls(ast.parse(code)))


def test_a_circle_is_found():
    assert list(circles({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == [["a", "b", "c", "a"]]


def test_relative_imports_resolve_as_python_does(sources):
    found = {i.target for i in sources.imports["benchmarks.peers.numpy_peer"] if i.relative}
    assert found == {"benchmarks.workloads"}
    found = {i.target for i in sources.imports["benchmarks.peers"]}
    assert {"benchmarks.workloads", "benchmarks.peers.jax_peer"} <= found
    assert all(i.target in sources.modules for m in sources.imports.values() for i in m if i.ours)
