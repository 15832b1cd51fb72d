"""Options of a compilation; the one place where the environment is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CHECKS = frozenset({"nan", "bounds"})
BACKENDS = ("native", "numpy")
#: The debug level from which kernels are timed.
PROFILE_LEVEL = 2
#: Every environment variable that chainrule reads, and what it does.
ENVIRONMENT = {
    "CHAINRULE_BACKEND": "native (default) or numpy",
    "CHAINRULE_THREADS": "at most this many threads",
    "CHAINRULE_DEBUG": "1 timings, 2 kernel profile, 3 rewrites, 4 loop IR, 5 LLVM IR, 6 assembly",
    "CHAINRULE_DUMP": "a folder for the program after every stage",
    "CHAINRULE_VERIFY": "1: check the program after every stage",
    "CHAINRULE_CHECK": "nan, bounds: build a checked binary",
    "CHAINRULE_CACHE_DIR": "the folder of compiled objects; off: none",
}


@dataclass(frozen=True)
class CompileOptions:
    """How to compile a program.

    ``backend``: ``native`` or ``numpy`` (the interpreter).  ``threads``: at most this many; None
    lets the cost model and the machine decide.  ``features``: LLVM feature string for another
    vector width (None: this CPU), ``cpu`` its name.  ``checks``: any of ``nan``, ``bounds``
    (which ``numpy`` always checks).
    ``profile`` counts the cycles of every kernel.  ``dtype``: compute every float as this type.
    """

    backend: str = "native"
    threads: int | None = None
    training: bool = False
    verify: bool = False
    checks: frozenset[str] = frozenset()
    debug: int = 0
    dump: Path | None = None
    cache: Path | None = None
    cpu: str | None = None
    features: str | None = None
    vector: str | None = None
    fuse: bool = True
    dtype: str | None = None
    profile: bool = False

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"backend {self.backend!r} is not one of {', '.join(BACKENDS)}")
        unknown = sorted(self.checks - CHECKS)
        if unknown:
            known = ", ".join(sorted(CHECKS))
            raise ValueError(f"no check is called {unknown[0]!r}; known: {known}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, not {self.threads}")


def options_from_environment(**overrides: object) -> CompileOptions:
    """Return options from ``CHAINRULE_*`` variables, with ``overrides`` taking precedence.

    ``CHAINRULE_BACKEND``, ``_THREADS``, ``_DEBUG`` (0 to 6), ``_DUMP`` (a folder), ``_VERIFY`` (1),
    ``_CHECK`` (``nan,bounds``), ``_CACHE_DIR`` (a folder; ``off`` switches the cache off).  From
    debug level 2 on, kernels are profiled.  Raises ValueError for a value that cannot be read.
    """
    environment = {
        name.removeprefix("CHAINRULE_").lower(): value
        for name, value in environment_values().items()
        if value
    }
    values: dict[str, object] = {}
    if "backend" in environment:
        values["backend"] = environment["backend"]
    if "threads" in environment:
        values["threads"] = _read_number("threads", environment)
    if "debug" in environment:
        values["debug"] = _read_number("debug", environment)
    if "dump" in environment:
        values["dump"] = Path(environment["dump"])
    if "verify" in environment:
        values["verify"] = environment["verify"] != "0"
    if "check" in environment:
        values["checks"] = frozenset(filter(None, environment["check"].split(",")))
    cache = environment.get("cache_dir", "")
    if cache != "off":
        values["cache"] = Path(cache) if cache else default_cache_folder()
    values.update({name: value for name, value in overrides.items() if value is not None})
    if int(values.get("debug", 0)) >= PROFILE_LEVEL:  # type: ignore[call-overload]
        values.setdefault("profile", True)
    return CompileOptions(**values)  # type: ignore[arg-type]


def environment_values() -> dict[str, str]:
    """Return the variables of `ENVIRONMENT` with their values, empty where they are not set."""
    return {name: os.environ.get(name, "") for name in ENVIRONMENT}


def _read_number(name: str, environment: dict[str, str]) -> int:
    try:
        return int(environment[name])
    except ValueError:
        variable, given = f"CHAINRULE_{name.upper()}", environment[name]
        raise ValueError(f"{variable} must be a whole number, not {given!r}") from None


def default_cache_folder() -> Path:
    """Return the user's cache folder for compiled objects."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("chainrule", appauthor=False))
