"""The object cache on disk: compiled machine code by the hash of what it was compiled from.

Entries are written to a temporary file and renamed, so that several processes may share a folder;
each carries a checksum, and one that does not match is dropped and made again.  A folder that
cannot be used costs a warning, once, and compilation goes on without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from ..compiler.errors import CacheWarning

_MAGIC = b"chainrule-object-1\n"
_DIGEST_BYTES = 32
_warned: set[Path] = set()


class ObjectCache:
    """Objects by key in one folder; ``folder`` None switches the cache off."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.hits = 0
        self.misses = 0

    def find(self, key: str) -> bytes | None:
        """Return the object of ``key``, or None where the cache has none that is whole."""
        found = None if self.folder is None else self._read(self.folder / f"{key}.o")
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
        return found

    def keep(self, key: str, data: bytes) -> None:
        """Keep the object of ``key``; a folder that cannot be written costs a warning."""
        if self.folder is not None:
            self._write(self.folder / f"{key}.o", data)

    def get(self, key: str, build: Callable[[], bytes]) -> bytes:
        """Return the object of ``key``, building and keeping it where the cache has none."""
        data = self.find(key)
        if data is None:
            data = build()
            self.keep(key, data)
        return data

    def _read(self, path: Path) -> bytes | None:
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(error)
            return None
        header = len(_MAGIC) + _DIGEST_BYTES
        body = raw[header:]
        digest = hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()
        if raw[:header] == _MAGIC + digest:
            return body
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def _write(self, path: Path, data: bytes) -> None:
        digest = hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
        temporary: str | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + digest + data)
            os.replace(temporary, path)
        except OSError as error:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        folder = self.folder
        assert folder is not None
        if folder not in _warned:
            _warned.add(folder)
            warnings.warn(
                f"the object cache in {folder} cannot be used ({error.strerror or error}); "
                "compiling without it",
                CacheWarning,
                stacklevel=2,
            )
