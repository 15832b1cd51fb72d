"""The package as a user gets it: one copy, light to import, and whole in a wheel."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

HEAVY = ["sympy", "networkx", "llvmlite", "sklearn", "scipy", "torch", "jax", "rich", "onnx"]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}", pytrace=False)
    return done.stdout


@pytest.fixture(scope="module")
def project(root) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_package_list_is_every_package_directory(root, project):
    tops = ["benchmarks", "compiler", "frontend", "runtime"]
    found = {"chainrule"}
    for top in tops:
        for init in (root / top).rglob("__init__.py"):
            found.add(".".join(["chainrule", *init.parent.relative_to(root).parts]))
    assert sorted(project["tool"]["setuptools"]["packages"]) == sorted(found)


def test_every_source_directory_is_a_package(root):
    for top in ("benchmarks", "compiler", "frontend", "runtime"):
        for source in (root / top).rglob("*.py"):
            assert (source.parent / "__init__.py").exists(), source.relative_to(root)


def test_the_tests_see_this_checkout_and_one_copy_of_it(root):
    import chainrule

    assert chainrule.__file__ is not None
    assert Path(chainrule.__file__).resolve() == root / "__init__.py"
    names: dict[str, list[str]] = {}
    copies: dict[str, set[int]] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(root) and name != "__main__":
            names.setdefault(file, []).append(name)
            copies.setdefault(file, set()).add(id(module))  # public modules have two names
    assert all(len(modules) == 1 for modules in copies.values()), names
    inside = {file for file in names if Path(file).is_relative_to(root / "tests")}
    outside = [n for f in names.keys() - inside for n in names[f] if not n.startswith("chainrule")]
    assert outside == []


def test_importing_chainrule_loads_nothing_heavy(tmp_path):
    code = f"import sys, chainrule; print([m for m in {HEAVY} if m in sys.modules])"
    assert run(sys.executable, "-c", code, cwd=tmp_path).strip() == "[]"


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory) -> Path:
    """A wheel, built from a copy so that setuptools leaves nothing in the checkout."""
    work = tmp_path_factory.mktemp("wheel")
    shutil.copytree(
        root,
        work / "source",
        ignore=shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "venv"),
    )
    run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps"),
        *("--no-build-isolation", "--wheel-dir", work / "dist", work / "source"),
        cwd=work,
    )
    (built,) = (work / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The Python of a fresh environment that holds the wheel and sees this one's libraries."""
    environment = tmp_path_factory.mktemp("environment") / "env"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment.parent)
    python = environment / "bin" / "python"
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet"),
        *("--no-index", "--no-deps", wheel),
        cwd=environment.parent,
    )
    purelib = run(
        *(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"),
        cwd=environment.parent,
    ).strip()
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    if site.ENABLE_USER_SITE:
        libraries.add(site.getusersitepackages())
    # A plain path in a .pth file does not process the .pth files there, so this environment's own
    # editable chainrule stays out of sight.
    Path(purelib, "libraries.pth").write_text("\n".join(sorted(libraries)) + "\n")
    return python


def test_the_wheel_holds_the_package_and_nothing_else(wheel, root):
    import zipfile

    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"chainrule", f"{wheel.name.split('-')[0]}-{wheel.name.split('-')[1]}.dist-info"}
    assert "chainrule/py.typed" in names
    assert any(name.endswith("LICENSE") for name in names)
    assert not [n for n in names if n.startswith(("chainrule/tests/", "chainrule/examples/"))]
    for data in root.glob("*/**/*.json"):
        inside = data.relative_to(root)
        if inside.parts[0] in ("benchmarks", "compiler", "frontend", "runtime"):
            assert f"chainrule/{inside.as_posix()}" in names


def test_every_module_of_the_wheel_can_be_imported(installed, tmp_path):
    code = """
import importlib, pkgutil, sys
import chainrule
assert chainrule.__file__.startswith(sys.prefix), chainrule.__file__
names = [m.name for m in pkgutil.walk_packages(chainrule.__path__, "chainrule.")]
for name in names:
    importlib.import_module(name)
print(*names)
"""
    names = run(installed, "-W", "error", "-I", "-c", code, cwd=tmp_path).split()
    for expected in ("chainrule.frontend", "chainrule.compiler.pipeline", "chainrule.__main__"):
        assert expected in names


def test_importing_a_module_loads_no_extra(installed, tmp_path):
    code = """
import importlib, pkgutil, sys
import chainrule
for m in pkgutil.walk_packages(chainrule.__path__, "chainrule."):
    importlib.import_module(m.name)
print([m for m in ("sklearn", "torch", "jax", "onnx", "cuda", "mpi4py") if m in sys.modules])
"""
    assert run(installed, "-I", "-c", code, cwd=tmp_path).strip() == "[]"


def test_the_command_line_of_the_wheel_works(installed, tmp_path):
    cache = {"CHAINRULE_CACHE_DIR": str(tmp_path / "cache")}
    by_module = run(installed, "-I", "-m", "chainrule", "info", cwd=tmp_path, **cache)
    by_script = run(installed.parent / "chainrule", "info", cwd=tmp_path, **cache)
    assert "chainrule" in by_module
    assert by_module.splitlines()[0] == by_script.splitlines()[0]


def test_the_benchmarks_of_the_wheel_work(installed, tmp_path):
    listed = run(installed, "-I", "-m", "chainrule", "bench", "--list", cwd=tmp_path)
    assert "mlp" in listed.split()
