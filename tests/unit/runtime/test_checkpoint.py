"""Checkpoints: the round trip, other programs' files, damage of every kind, and full disks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from chainrule.compiler.errors import CheckpointError
from chainrule.runtime import checkpoint
from chainrule.runtime.checkpoint import check_compatible, load_arrays, save_arrays

ARRAYS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bias": np.array([1.5, -0.0, np.nan, np.inf]),
    "scalar": np.array(7, dtype=np.int64),
    "empty": np.zeros((0, 5), dtype=np.float32),
    "mask": np.array([True, False, True]),
    "random": np.array([1, 2**32 - 1], dtype=np.uint32),
}
METADATA = {"step": "12", "név": 'ünïcode \n "quoted"'}


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name, array in left.items():
        other = right[name]
        assert (other.dtype, other.shape) == (array.dtype, array.shape), name
        assert other.tobytes() == array.tobytes(), name


def test_everything_comes_back_bit_for_bit(tmp_path):
    save_arrays(tmp_path / "a.safetensors", ARRAYS, METADATA)
    arrays, metadata = load_arrays(tmp_path / "a.safetensors")
    assert_same(ARRAYS, arrays)
    assert metadata == METADATA
    assert list(arrays) == list(ARRAYS)
    for array in arrays.values():
        assert array.flags.writeable and array.flags.c_contiguous and array.dtype.isnative


@pytest.mark.parametrize("dtype", sorted(checkpoint._CODES))
def test_every_element_type(tmp_path, dtype):
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    arrays = {"x": np.array([[0, 1], [1, 0]]).astype(kind), "y": np.array(1).astype(kind)}
    save_arrays(tmp_path / "a", arrays)
    assert_same(arrays, load_arrays(tmp_path / "a")[0])


def test_no_arrays_at_all(tmp_path):
    save_arrays(tmp_path / "a", {})
    assert load_arrays(tmp_path / "a") == ({}, {})


def test_strided_fortran_and_big_endian_arrays_are_saved_by_value(tmp_path):
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    given = {
        "t": base.T,
        "s": base[::2, ::3],
        "f": np.asfortranarray(base),
        "b": base.astype(">f4"),
    }
    save_arrays(tmp_path / "a", given)
    loaded, _ = load_arrays(tmp_path / "a")
    for name, array in given.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == np.float32


def test_the_library_reads_what_we_write(tmp_path):
    save_arrays(tmp_path / "a.safetensors", ARRAYS, METADATA)
    assert_same(ARRAYS, safetensors.numpy.load_file(tmp_path / "a.safetensors"))


def test_we_read_what_the_library_writes(tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "a.safetensors", metadata={"format": "np"})
    arrays, metadata = load_arrays(tmp_path / "a.safetensors")
    assert_same(dict(sorted(ARRAYS.items())), dict(sorted(arrays.items())))
    assert metadata == {"format": "np"}


# -- damage ---------------------------------------------------------------------------------------

SMALL = {"w": np.array([1.0, 2.0], np.float32), "n": np.array(3, np.int64), "b": np.array([True])}


def small_file(tmp_path):
    path = tmp_path / "small"
    save_arrays(path, SMALL, {"step": "12"})
    return path, path.read_bytes()


def test_truncation_at_every_byte_is_refused(tmp_path):
    path, data = small_file(tmp_path)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            load_arrays(path)


def test_a_change_of_any_byte_is_refused(tmp_path):
    path, data = small_file(tmp_path)
    header_end = 8 + int.from_bytes(data[:8], "little")
    for position in range(len(data)):
        for flip in (0x01, 0x20, 0xFF):
            changed = bytearray(data)
            changed[position] ^= flip
            path.write_bytes(changed)
            try:
                arrays, metadata = load_arrays(path)
            except CheckpointError:
                continue
            # What can pass: other white space in the padding, or the digest's own name, without
            # which a file counts as another program's.
            assert position < header_end
            assert_same(SMALL, arrays)
            assert metadata["step"] == "12"


def test_random_damage_never_escapes_as_another_error(tmp_path):
    path, data = small_file(tmp_path)
    rng = np.random.default_rng(0)
    for _ in range(3000):
        changed = bytearray(data)
        for _ in range(rng.integers(1, 6)):
            kind, position = rng.integers(3), int(rng.integers(len(changed)))
            if kind == 0:
                changed[position] = int(rng.integers(256))
            elif kind == 1:
                del changed[position : position + int(rng.integers(1, 9))]
            else:
                changed[position:position] = rng.bytes(int(rng.integers(1, 9)))
        path.write_bytes(changed)
        try:
            arrays, _ = load_arrays(path)
        except CheckpointError:
            continue
        assert {name: a.tobytes() for name, a in arrays.items()} == {
            name: a.tobytes() for name, a in SMALL.items()
        }


def write_raw(path, header: object, data: bytes = b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BAD_HEADERS = {
    "not valid JSON": b'{"w": ',
    "no JSON object": b"[]",
    "occurs twice": b'{"w": 1, "w": 2}',
    "is malformed": {"w": 3},
    "unknown element type": {"w": {**ENTRY, "dtype": "F99"}},
    "has shape": {"w": {**ENTRY, "shape": [-2]}},
    "has offsets": {"w": {**ENTRY, "data_offsets": [8, 0]}},
    "ends at byte 80": {"w": {**ENTRY, "shape": [20], "data_offsets": [0, 80]}},
    "needs 12 bytes": {"w": {**ENTRY, "shape": [3]}},
    "starts at byte 4": {"w": {**ENTRY, "shape": [1], "data_offsets": [4, 8]}},
    "the arrays take 0": {},
    "no table of texts": {"__metadata__": {"a": 1}, "w": ENTRY},
    "NaN is no JSON": b'{"w": NaN}',
    "JSON: maximum recursion|JSON: ": b"[" * 100_000,
}


@pytest.mark.parametrize("message", BAD_HEADERS)
def test_the_message_names_what_is_wrong(tmp_path, message):
    write_raw(tmp_path / "a", BAD_HEADERS[message], bytes(8))
    with pytest.raises(CheckpointError, match=message):
        load_arrays(tmp_path / "a")


def test_a_huge_claimed_shape_allocates_nothing(tmp_path):
    shape = [2**40, 2**40]
    write_raw(tmp_path / "a", {"w": {**ENTRY, "shape": shape}}, bytes(8))
    with pytest.raises(CheckpointError, match="needs"):
        load_arrays(tmp_path / "a")


def test_bytes_that_are_no_bool_are_refused(tmp_path):
    write_raw(tmp_path / "a", {"w": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]}}, b"\2")
    with pytest.raises(CheckpointError, match="no bool"):
        load_arrays(tmp_path / "a")


@pytest.mark.parametrize(
    ("arrays", "metadata"),
    [
        ({"__metadata__": np.zeros(1)}, {}),
        ({3: np.zeros(1)}, {}),
        ({"x": np.array([object()])}, {}),
        ({"x": np.array([1j])}, {}),
        ({}, {"step": 3}),
    ],
)
def test_what_cannot_be_saved_is_refused_before_writing(tmp_path, arrays, metadata):
    with pytest.raises(CheckpointError):
        save_arrays(tmp_path / "a", arrays, metadata)
    assert not list(tmp_path.iterdir())


# -- atomicity ------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fsync", "replace", "fchmod"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path, data = small_file(tmp_path)

    def fail(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        save_arrays(path, ARRAYS)
    assert path.read_bytes() == data
    assert [p.name for p in tmp_path.iterdir()] == ["small"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path, data = small_file(tmp_path)
    script = """
        import resource, signal, sys
        import numpy as np
        from chainrule.runtime.checkpoint import save_arrays
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            save_arrays(sys.argv[1], {"x": np.zeros(100_000)})
        except OSError as error:
            print("refused", error.errno)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("refused")
    assert path.read_bytes() == data
    assert [p.name for p in tmp_path.iterdir()] == ["small"]


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "a"
    save_arrays(path, {"x": np.full(500_000, 0.0)})
    script = """
        import sys
        import numpy as np
        from chainrule.runtime.checkpoint import save_arrays
        print("ready", flush=True)
        for value in range(1, 1_000_000):
            save_arrays(sys.argv[1], {"x": np.full(500_000, float(value))})
    """
    for delay in (0.003, 0.011, 0.029, 0.053):
        command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                process.kill()
        arrays, _ = load_arrays(path)
        assert (arrays["x"] == arrays["x"][0]).all()


def test_permissions_and_links_are_kept(tmp_path):
    path, _ = small_file(tmp_path)
    path.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(path)
    save_arrays(link, ARRAYS)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert_same(ARRAYS, load_arrays(path)[0])


def test_a_new_file_follows_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        save_arrays(tmp_path / "a", SMALL)
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_arrays(tmp_path / "nothing")


# -- fitting --------------------------------------------------------------------------------------


def test_a_fitting_checkpoint_passes():
    check_compatible({"w": ("float32", (2,)), "n": ("int64", ()), "b": ("bool", (1,))}, SMALL)


def test_what_does_not_fit_is_listed_at_most_eight_names_each():
    expected = {f"layer{i}.weight": ("float32", (2,)) for i in range(20)}
    arrays = {"w": np.zeros(3), **{f"layer{i}.weight": np.zeros(3, "f4") for i in range(2)}}
    with pytest.raises(CheckpointError) as caught:
        check_compatible(expected, arrays)
    message = str(caught.value)
    assert "missing: layer2.weight, " in message
    assert "layer9.weight and 10 more" in message
    assert "unexpected: w" in message
    assert "mismatched: layer0.weight is float32(3,), not float32(2,)" in message
