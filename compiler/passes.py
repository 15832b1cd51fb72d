"""Running passes: timing, verification, dumps and notes between the stages of the pipeline."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from .errors import ChainruleError
from .options import CompileOptions

Form = TypeVar("Form")
#: How many programs this process has dumped into each folder.
_dumped: dict[Path, itertools.count[int]] = {}
Result = TypeVar("Result")


@dataclass
class PassRunner:
    """Runs the stages of one compilation and keeps what they report.

    ``seconds`` maps a stage to its time; ``notes`` are sentences for ``explain()``.
    """

    options: CompileOptions
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    fired: dict[str, int] = field(default_factory=dict)
    folder: Path | None = None
    dumped: int = 0

    def run(
        self,
        name: str,
        stage: Callable[..., Result],
        *arguments: object,
        verify: Callable[[Result], object] | None = None,
        text: Callable[[Result], str] | None = None,
        level: int = 99,
    ) -> Result:
        """Run one stage; verify its result and show or write its text where options ask for it."""
        start = time.perf_counter()
        try:
            result = stage(*arguments)
        except ChainruleError:
            raise
        except Exception as error:
            error.add_note(f"in the compiler stage {name!r}")
            raise
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        if verify is not None and self.options.verify:
            verify(result)
        if text is not None:
            if self.options.dump is not None:
                self.write(name, text(result))
            if self.options.debug >= level:
                print(f"--- {name}\n{text(result)}", file=sys.stderr)
        return result

    def write(self, name: str, text: str, suffix: str = "txt") -> None:
        """Write one numbered dump file.

        The first program of a process goes to the dump folder itself, the others to numbered
        folders in it.
        """
        if self.folder is None:
            top = Path(self.options.dump or ".")
            number = next(_dumped.setdefault(top.absolute(), itertools.count(1)))
            self.folder = top if number == 1 else top / f"program_{number}"
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.dumped:02d}_{name}.{suffix}"
        path.write_text(text, encoding="utf-8")
        self.dumped += 1

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def rule_fired(self, rule: str, count: int = 1) -> None:
        self.fired[rule] = self.fired.get(rule, 0) + count
        if self.options.debug >= 3:
            print(f"rewrite: {rule}", file=sys.stderr)
