"""``python -m chainrule``, also installed as ``chainrule``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import __version__
from .benchmarks.__main__ import main as run_benchmarks
from .compiler.errors import ChainruleError
from .frontend.commands import demo, info, inspect, verify
from .frontend.commands.failure import CommandError

COMMANDS = {"demo": demo, "info": info, "inspect": inspect, "verify": verify}
BENCH = "bench"
_BENCH_HELP = "timings against other libraries; `chainrule bench --help`"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 where a check failed, 2 where it could not be done."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == [BENCH]:  # its options are its own
        return run_benchmarks(given[1:])
    parser = build_parser()
    options = parser.parse_args(given)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        return COMMANDS[options.command].run(options)
    except (ChainruleError, CommandError, ImportError, OSError, ValueError) as error:
        if options.debug:
            raise
        first = str(error).strip().splitlines() or [type(error).__name__]
        print(f"chainrule {options.command}: {first[0]}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"chainrule {options.command}: interrupted", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="chainrule", description="A symbolic-to-compiled graph compiler for neural networks."
    )
    parser.add_argument("--version", action="version", version=f"chainrule {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        command.add_argument("--debug", action="store_true", help="show where an error came from")
        module.add_arguments(command)
    commands.add_parser(BENCH, help=_BENCH_HELP, add_help=False)
    return parser


if __name__ == "__main__":
    sys.exit(main())
