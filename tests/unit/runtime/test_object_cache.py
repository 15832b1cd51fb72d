"""The object cache: hits, damage, several processes, folders that fail; and what compiles anew."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import textwrap
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, optim
from chainrule.compiler.errors import CacheWarning, InputError
from chainrule.compiler.options import CompileOptions, default_cache_folder
from chainrule.compiler.pipeline import compile_native
from chainrule.runtime import cache as cache_module
from chainrule.runtime import cpu_jit
from chainrule.runtime.cache import ObjectCache
from chainrule.runtime.cpu_jit import host_machine, machine_for, object_key

DATA = bytes(range(256)) * 3


@pytest.fixture(autouse=True)
def forget_warnings(monkeypatch):
    monkeypatch.setattr(cache_module, "_warned", set())


# -- the cache by itself --------------------------------------------------------------------------


def test_what_is_kept_is_found_by_any_cache_on_the_folder(tmp_path):
    folder = tmp_path / "a" / "b"
    first = ObjectCache(folder)
    assert first.find("key") is None
    first.keep("key", DATA)
    assert first.find("key") == DATA
    assert (first.hits, first.misses) == (1, 1)
    assert ObjectCache(folder).get("key", lambda: pytest.fail("built again")) == DATA
    assert first.find("other") is None
    assert [path.name for path in folder.iterdir()] == ["key.o"]


def test_no_folder_is_no_cache():
    cache = ObjectCache(None)
    assert [cache.get("key", lambda: DATA) for _ in range(2)] == [DATA, DATA]
    assert (cache.hits, cache.misses) == (0, 2)


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:10],
        lambda raw: raw[:-1],
        lambda raw: raw + b"\0",
        lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
        lambda raw: b"chainrule-object-9\n" + raw[19:],
        lambda raw: raw[:20] + bytes([raw[20] ^ 1]) + raw[21:],
        lambda raw: b"\x7fELF" + raw,
    ],
    ids=["empty", "short", "truncated", "longer", "flipped", "layout", "checksum", "foreign"],
)
def test_a_damaged_entry_is_dropped_and_made_again(tmp_path, damage):
    cache = ObjectCache(tmp_path)
    cache.keep("key", DATA)
    (entry,) = tmp_path.iterdir()
    entry.write_bytes(damage(entry.read_bytes()))
    assert cache.find("key") is None
    assert not entry.exists()
    assert cache.get("key", lambda: b"new") == b"new"
    assert ObjectCache(tmp_path).find("key") == b"new"


def collected(work):
    """The cache warnings of ``work()``, and what it returned."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = work()
    return [str(w.message) for w in caught if w.category is CacheWarning], result


def fail_with(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


class FullFile:
    """A file on a full disk."""

    def __init__(self, handle, mode):
        os.close(handle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    write = staticmethod(fail_with(errno.ENOSPC))


def test_a_folder_that_is_a_file_costs_one_warning(tmp_path):
    (tmp_path / "taken").write_text("")
    cache = ObjectCache(tmp_path / "taken")
    messages, built = collected(lambda: [cache.get("key", lambda: DATA) for _ in range(3)])
    assert built == [DATA] * 3
    (message,) = messages
    assert str(tmp_path / "taken") in message and "compiling without it" in message


@pytest.mark.parametrize(
    ("module", "name", "failure"),
    [
        (tempfile, "mkstemp", fail_with(errno.ENOSPC)),
        (tempfile, "mkstemp", fail_with(errno.EACCES)),
        (os, "fdopen", FullFile),
        (os, "replace", fail_with(errno.ENOSPC)),
        (Path, "mkdir", fail_with(errno.EROFS)),
    ],
    ids=["full", "unwritable", "full-later", "full-at-rename", "read-only"],
)
def test_a_disk_that_refuses_costs_one_warning_and_no_leftovers(
    tmp_path, monkeypatch, module, name, failure
):
    cache = ObjectCache(tmp_path / "objects")
    cache.folder.mkdir()
    monkeypatch.setattr(module, name, failure)
    messages, built = collected(lambda: [cache.get(k, lambda: DATA) for k in "abc"])
    monkeypatch.undo()
    assert built == [DATA] * 3
    assert len(messages) == 1
    assert list(cache.folder.iterdir()) == []


@pytest.mark.skipif("os.geteuid() == 0", reason="root may write anywhere")
def test_a_folder_without_write_permission(tmp_path):
    tmp_path.chmod(0o500)
    messages, built = collected(lambda: ObjectCache(tmp_path).get("key", lambda: DATA))
    assert built == DATA and len(messages) == 1


# -- programs -------------------------------------------------------------------------------------


def model(classes=3):
    x = cr.input("x", ("batch", 5))
    return (x @ cr.constant(np.ones((5, classes), np.float32))).tanh()


def expected(x, classes=3):
    return np.tanh(np.repeat(x.sum(1, keepdims=True), classes, 1))


def compiled(folder, classes=3, **options):
    """A function and its cache; ``CHAINRULE_VERIFY`` is for the compiler's own tests."""
    function = cr.compile(model(classes), cache=folder, verify=False, **options)
    return function, function.executable.code.cache


@pytest.fixture
def compilations(monkeypatch):
    """The names of the modules that were compiled."""
    names = []
    original = cpu_jit.compile_text

    def counting(text, source, *rest):
        names.append(source.name)
        return original(text, source, *rest)

    monkeypatch.setattr(cpu_jit, "compile_text", counting)
    return names


X = np.linspace(-1, 1, 20, dtype=np.float32).reshape(4, 5)


def test_a_program_is_compiled_once(tmp_path, compilations):
    function, first = compiled(tmp_path)
    assert sorted(compilations) == ["kernels.float32", "program", "threads"]
    again, second = compiled(tmp_path)
    assert len(compilations) == 3
    assert (first.hits, first.misses, second.hits, second.misses) == (0, 3, 3, 0)
    assert function(x=X).tobytes() == again(x=X).tobytes()
    np.testing.assert_allclose(function(x=X), expected(X), rtol=1e-6)


def test_damaged_objects_are_compiled_again(tmp_path, compilations):
    compiled(tmp_path)
    entries = sorted(tmp_path.iterdir())
    sizes = [path.stat().st_size for path in entries]
    entries[0].write_bytes(b"")
    entries[1].write_bytes(entries[1].read_bytes()[:100])
    entries[2].write_bytes(entries[2].read_bytes()[:-8] + bytes(8 * [0xCC]))
    function, cache = compiled(tmp_path)
    assert cache.misses == 3 and len(compilations) == 6
    np.testing.assert_allclose(function(x=X), expected(X), rtol=1e-6)
    assert [path.stat().st_size for path in entries] == sizes


def test_a_full_disk_or_a_folder_that_is_a_file_stops_nothing(tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("")
    messages, (function, _) = collected(lambda: compiled(tmp_path / "taken"))
    np.testing.assert_allclose(function(x=X), expected(X), rtol=1e-6)
    assert len(messages) == 1
    monkeypatch.setattr(os, "replace", fail_with(errno.ENOSPC))
    messages, (function, _) = collected(lambda: compiled(tmp_path / "full"))
    monkeypatch.undo()
    np.testing.assert_allclose(function(x=X), expected(X), rtol=1e-6)
    assert len(messages) == 1 and os.strerror(errno.ENOSPC) in messages[0]
    assert list((tmp_path / "full").iterdir()) == []


def test_no_cache_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", "off")
    function = cr.compile(model(), verify=False)
    assert function.options.cache is None
    np.testing.assert_allclose(function(x=X), expected(X), rtol=1e-6)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_the_users_unless_named(monkeypatch, tmp_path):
    monkeypatch.delenv("CHAINRULE_CACHE_DIR", raising=False)
    assert cr.compile(model(), backend="numpy").options.cache == default_cache_folder()
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(tmp_path))
    assert cr.compile(model(), backend="numpy").options.cache == tmp_path


def keys(classes=3, machine=None, **options):
    chosen = CompileOptions(**options)
    program = cr.compile(model(classes), backend="numpy").program
    artifact = compile_native(program, chosen, machine or machine_for(chosen))
    return {source.name: object_key(source) for source in artifact.modules}


def test_the_same_program_has_the_same_keys():
    assert keys() == keys() == keys(threads=1)


def test_everything_that_changes_the_code_changes_its_key():
    base = keys()
    others = [
        keys(classes=4),
        keys(profile=True),
        keys(checks=frozenset({"nan"})),
        keys(fuse=False),
    ]
    programs = [k["program"] for k in (base, *others)]
    assert len(set(programs)) == len(programs)


@pytest.mark.parametrize("field", ["cpu", "features", "isa"])
def test_another_machine_shares_no_object(field):
    host = host_machine()
    changed = {"cpu": "generic", "features": host.features + ",-bmi2", "isa": "sse2"}
    if changed[field] == getattr(host, field):
        pytest.skip(f"this is such a {field}")
    base, other = keys(), keys(machine=replace(host, **{field: changed[field]}))
    different = {name for name in base if base[name] != other[name]}
    assert different == base.keys() - ({"threads"} if field == "isa" else set())


def test_another_llvm_shares_no_object(monkeypatch):
    base = keys()
    cpu_jit._compiler_fingerprint.cache_clear()
    monkeypatch.setattr(cpu_jit, "llvm_version", lambda: "99.0.0")
    other = keys()
    monkeypatch.undo()
    cpu_jit._compiler_fingerprint.cache_clear()
    assert not set(base.values()) & set(other.values())


# -- several processes ----------------------------------------------------------------------------

PROCESS = """
    import numpy as np
    import chainrule as cr

    x = cr.input("x", ("batch", 5))
    function = cr.compile((x @ cr.constant(np.ones((5, 3), np.float32))).tanh())
    print(function(x=np.ones((2, 5), np.float32)).tobytes().hex())
"""


def test_processes_share_a_folder(tmp_path):
    """All compile the same program at once; entries come out whole, and every result is right."""
    environment = {**os.environ, "CHAINRULE_CACHE_DIR": str(tmp_path), "CHAINRULE_VERIFY": "0"}
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(PROCESS)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    answers = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], answers
    wanted = np.full((2, 3), np.tanh(np.float32(5)), np.float32)
    for output, _ in answers:
        found = np.frombuffer(bytes.fromhex(output), np.float32).reshape(2, 3)
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert len({output for output, _ in answers}) == 1
    entries = sorted(tmp_path.iterdir())
    assert [path.suffix for path in entries] == [".o"] * 3
    whole = ObjectCache(tmp_path)
    assert all(whole.find(path.stem) for path in entries)


# -- sizes ----------------------------------------------------------------------------------------


def test_another_batch_size_compiles_nothing(tmp_path, compilations):
    function, cache = compiled(tmp_path)
    count = len(compilations)
    for batch in (1, 2, 3, 7, 16, 33, 1, 64, 129, 0, 1000):
        x = np.random.default_rng(batch).normal(size=(batch, 5)).astype(np.float32)
        found = function(x=x)
        assert found.shape == (batch, 3)
        np.testing.assert_allclose(found, expected(x), rtol=2e-6, atol=1e-7)
    assert len(compilations) == count == cache.misses


def test_a_training_step_takes_any_batch_size(tmp_path, compilations):
    weight = cr.parameter(np.zeros((5, 1), np.float32), "weight")
    x, y = cr.input("x", ("batch", 5)), cr.input("y", ("batch", 1))
    loss = losses.mse(x @ weight, y)
    train = cr.compile_train(loss, optim.SGD(0.1), cache=tmp_path, verify=False)
    count = len(compilations)
    plain = np.zeros((5, 1))
    for batch in (8, 1, 3, 1, 40, 8):
        rng = np.random.default_rng(batch)
        xs, ys = rng.normal(size=(batch, 5)), rng.normal(size=(batch, 1))
        error = xs.astype("f4").astype("f8") @ plain - ys.astype("f4")
        np.testing.assert_allclose(train.step(x=xs, y=ys)["loss"], (error**2).mean(), rtol=1e-5)
        plain -= 0.1 * 2 * xs.T @ error / batch
    np.testing.assert_allclose(weight.value, plain, rtol=1e-4, atol=1e-6)
    assert len(compilations) == count


@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_an_empty_batch(backend):
    x = cr.input("x", ("batch", 3))
    total = cr.compile(x.sum(), backend=backend)
    assert total(x=np.zeros((0, 3))) == 0
    assert cr.compile(x.sum(0), backend=backend)(x=np.zeros((0, 3))).tolist() == [0, 0, 0]
    mean = cr.compile(x.mean(0), backend=backend)  # the line that the message names
    with pytest.raises(InputError, match=r"test_object_cache.py:\d+: mean over an axis of size 0"):
        mean(x=np.zeros((0, 3)))
    assert mean(x=np.ones((2, 3))).tolist() == [1, 1, 1]


@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_an_empty_batch_trains_nothing(backend):
    weight = cr.parameter(np.ones((3, 1), np.float32), "weight")
    x, y = cr.input("x", ("batch", 3)), cr.input("y", ("batch", 1))
    train = cr.compile_train(losses.mse(x @ weight, y), optim.Adam(0.1), backend=backend)
    with pytest.raises(InputError, match="mean over an axis of size 0"):
        train.step(x=np.zeros((0, 3)), y=np.zeros((0, 1)))
    assert weight.value.tolist() == [[1], [1], [1]]
    assert train.steps == 0
