"""`python -m bench COMMAND`: run (the default), growth, report."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = ("run", "growth", "report")


def main(arguments: list[str]) -> int:
    """Hand the rest of the command line to the command's module."""
    command = arguments[0] if arguments else "run"
    if command in COMMANDS:
        arguments = arguments[1:]
    elif command.startswith("-"):
        command = "run"  # only options: a run
    else:
        print(f"no command {command!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    code: int = import_module(f"bench.{command}").main(arguments)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
