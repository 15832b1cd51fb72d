"""Checkpoints: named arrays and text in one safetensors file, written whole or not at all.

The format is safetensors (https://github.com/huggingface/safetensors, README, "Format"): eight
bytes of header length, a JSON header, the arrays' bytes.  It is written and read here rather than
through the library so that arrays stream to a file that is synced before it takes its name, and so
that a damaged file is refused with what is wrong with it.  A digest in the metadata covers names,
shapes, metadata and data; files of other programs, which have none, are read without it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..compiler.errors import CheckpointError
from ..compiler.ir.dims import format_shape

_CODES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
}
_NAMES = {code: name for name, code in _CODES.items()}
_METADATA = "__metadata__"
_DIGEST = "chainrule.blake2b"
_MAX_HEADER = 100_000_000  # the format's own limit
_LISTED = 8  # names shown in a message

Header = dict[str, dict[str, Any]]


# -- writing --------------------------------------------------------------------------------------


def save_arrays(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write ``arrays`` and ``metadata`` to ``path``, atomically.

    The bytes go to a temporary file in the same folder, are synced to disk, and then take the
    name; a reader, or a crash at any moment, sees the old file or the new one.  An existing file
    keeps its permissions; a symbolic link keeps pointing to it.

    Raises
    ------
    CheckpointError
        A name is reserved or no string, or an element type has no place in the format.
    OSError
        The file cannot be written, for example because the disk is full; ``path`` is unchanged.
    """
    tensors = {name: _portable(name, array) for name, array in arrays.items()}
    header = _describe(tensors)
    notes = _checked_metadata(metadata or {})
    digest = _start_digest(header, notes)
    for array in tensors.values():
        digest.update(_bytes_of(array))
    notes[_DIGEST] = digest.hexdigest()
    encoded = json.dumps({_METADATA: notes, **header}, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)

    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(len(encoded).to_bytes(8, "little"))
            file.write(encoded)
            for array in tensors.values():
                file.write(_bytes_of(array))
            file.flush()
            if target.exists():
                os.fchmod(file.fileno(), target.stat().st_mode & 0o7777)
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _portable(name: object, array: object) -> np.ndarray:
    """Return ``array`` little-endian and C-contiguous."""
    if not isinstance(name, str) or name == _METADATA:
        raise CheckpointError(f"an array cannot be called {name!r} in a checkpoint")
    array = np.asarray(array)
    if array.dtype.name not in _CODES:
        raise CheckpointError(f"array {name!r}: {array.dtype} elements cannot be saved")
    order = "<" if array.dtype.byteorder in "><=" and array.dtype.kind != "V" else "|"
    return np.asarray(array, dtype=array.dtype.newbyteorder(order), order="C")


def _describe(tensors: Mapping[str, np.ndarray]) -> Header:
    header: Header = {}
    start = 0
    for name, array in tensors.items():
        end = start + array.nbytes
        header[name] = {
            "dtype": _CODES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
        start = end
    return header


def _checked_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str) or key == _DIGEST:
            raise CheckpointError(f"metadata {key!r}: {value!r} must be text, under another name")
    return dict(metadata)


def _start_digest(header: Header, notes: Mapping[str, str]) -> hashlib.blake2b:
    """Return a digest that has taken in everything but the arrays' bytes."""
    described = json.dumps([header, dict(notes)], sort_keys=True).encode()
    return hashlib.blake2b(described, digest_size=16)


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut, where the system can promise that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # the file itself is synced; some network file systems refuse this for folders
    finally:
        os.close(descriptor)


# -- reading --------------------------------------------------------------------------------------


def load_arrays(
    path: str | os.PathLike[str],
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and the metadata of a safetensors file.

    Nothing is returned unless all of it is sound, so a caller never applies half a checkpoint.

    Raises
    ------
    CheckpointError
        The file is truncated, damaged or no safetensors file; the message says where.
    OSError
        The file cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        header, notes, start = _read_header(file, size, path)
        _check_layout(header, size - start, path)
        expected_digest = notes.pop(_DIGEST, None)
        digest = _start_digest(header, notes)
        loaded: dict[str, np.ndarray] = {}
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            array = np.empty(entry["shape"], dtype=_dtype_of(entry["dtype"]))
            raw = _bytes_of(array)
            if file.readinto(raw) != len(raw):  # type: ignore[attr-defined]
                raise CheckpointError(f"{path}: the file ends within array {name!r}")
            digest.update(raw)
            loaded[name] = array
    if expected_digest is not None and expected_digest != digest.hexdigest():
        raise CheckpointError(f"{path}: the contents do not match their checksum; damaged")
    for name, array in loaded.items():
        if array.dtype == np.bool_ and array.view(np.uint8).max(initial=0) > 1:
            raise CheckpointError(f"{path}: array {name!r} holds bytes that are no bool")
    return {name: loaded[name] for name in header}, notes


def _dtype_of(code: str) -> np.dtype:
    if code == "BF16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    dtype = np.dtype(_NAMES[code])
    return dtype if dtype.itemsize == 1 else dtype.newbyteorder("<")


def _read_header(
    file: BinaryIO, size: int, path: str | os.PathLike[str]
) -> tuple[Header, dict[str, str], int]:
    """Return the arrays' descriptions, the metadata, and where the arrays' bytes start."""
    prefix = file.read(8)
    if len(prefix) < 8:
        raise CheckpointError(f"{path}: {size} bytes are too few for a checkpoint; truncated")
    length = int.from_bytes(prefix, "little")
    if length > _MAX_HEADER:
        raise CheckpointError(f"{path}: a header of {length} bytes; this is no safetensors file")
    if length > size - 8:
        raise CheckpointError(
            f"{path}: the header needs {length} bytes, the file has {size - 8}; truncated"
        )
    try:
        header = json.loads(
            file.read(length).decode(), object_pairs_hook=_unique_keys, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the header is not valid JSON: {error}") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is no JSON object")
    notes = header.pop(_METADATA, {})
    if not isinstance(notes, dict) or not all(isinstance(v, str) for v in notes.values()):
        raise CheckpointError(f"{path}: the header's metadata is no table of texts")
    return header, notes, 8 + length


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_layout(header: Header, available: int, path: str | os.PathLike[str]) -> None:
    """Raise CheckpointError unless the arrays tile the bytes after the header exactly."""
    spans = []
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise CheckpointError(f"{path}: the header's entry for {name!r} is malformed")
        code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(code, str) or code not in _NAMES:
            raise CheckpointError(f"{path}: array {name!r} has unknown element type {code!r}")
        if not isinstance(shape, list) or not all(map(_is_count, shape)) or len(shape) > 32:
            raise CheckpointError(f"{path}: array {name!r} has shape {shape!r}")
        if (
            not isinstance(offsets, list)
            or len(offsets) != 2
            or not all(map(_is_count, offsets))
            or offsets[0] > offsets[1]
        ):
            raise CheckpointError(f"{path}: array {name!r} has offsets {offsets!r}")
        if offsets[1] > available:
            raise CheckpointError(
                f"{path}: array {name!r} ends at byte {offsets[1]} of {available}; truncated"
            )
        needed = math.prod(shape) * _dtype_of(code).itemsize
        if needed != offsets[1] - offsets[0]:
            raise CheckpointError(
                f"{path}: array {name!r}, {code}{format_shape(tuple(shape))}, needs {needed} "
                f"bytes and has {offsets[1] - offsets[0]}"
            )
        spans.append((*offsets, name))
    position = 0
    for start, end, name in sorted(spans):
        if start != position:
            raise CheckpointError(
                f"{path}: array {name!r} starts at byte {start}, where {position} is expected"
            )
        position = end
    if position != available:
        raise CheckpointError(
            f"{path}: {available} bytes follow the header, the arrays take {position}"
        )


# -- fitting --------------------------------------------------------------------------------------


def check_compatible(
    expected: Mapping[str, tuple[str, tuple[int, ...]]], arrays: Mapping[str, np.ndarray]
) -> None:
    """Raise CheckpointError unless ``arrays`` has exactly the expected names, dtypes and shapes.

    Parameters
    ----------
    expected
        Name -> ``(dtype, shape)``.
    arrays
        What a checkpoint holds.
    """
    missing = [name for name in expected if name not in arrays]
    unexpected = [name for name in arrays if name not in expected]
    mismatched = [
        f"{name} is {array.dtype.name}{format_shape(array.shape)}, "
        f"not {dtype}{format_shape(tuple(shape))}"
        for name, (dtype, shape) in expected.items()
        if name in arrays
        and ((array := arrays[name]).dtype.name != dtype or array.shape != tuple(shape))
    ]
    complaints = [
        f"{what}: {_listing(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("mismatched", mismatched),
        )
        if names
    ]
    if complaints:
        raise CheckpointError("the checkpoint does not fit; " + "; ".join(complaints))


def _listing(names: list[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
