"""The command ``shardfun``: which command is meant, and how each way to end becomes lines and an exit code.

A command's module has ``add_parser(subparsers)``, which sets ``run`` as the parser's ``func``. Only the module of the command that
is asked for is imported: ``--help`` must not wait for Trio, nng and LevelDB, and a shell script may ask for the status often.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final, NamedTuple

from shardfun import __version__
from shardfun.errors import ConfigurationError, ShardfunError

EXIT_USAGE: Final = 2
EXIT_INTERNAL: Final = 70
"""``EX_SOFTWARE`` of sysexits.h: a mistake of shardfun's own."""
EXIT_INTERRUPTED: Final = 130
EXIT_BROKEN_PIPE: Final = 141
"""As a shell reports a process that SIGPIPE ended."""

EPILOG: Final = """\
examples:
  shardfun run conf/flights.toml                  start a node, or go on where it stopped
  shardfun status conf/flights.toml               ask the running node how it is
  shardfun query conf/shop.toml shop/cart 42      look at the state of an address while the node runs
  shardfun inspect data/flights                   look at what a stopped node has stored
  shardfun dead-letters list conf/flights.toml    look at messages that could not be processed
  shardfun simulate --seeds 1:200                 test the protocol under injected faults
  shardfun chaos conf/flights.toml --kills 20     kill real processes of a private copy, compare the results

'shardfun COMMAND --help' explains a command. Exit codes: 0 done, 2 configuration or usage, 3 application, 4 storage,
5 data directory in use, 6 ingress or egress, 7 backlog limit, 8 not running or gave up,
9 chaos shows nothing, 70 bug, 130 interrupted.
"""


class Command(NamedTuple):
    """A command before its module is imported."""

    module: str
    help: str


COMMANDS: Final = {
    "run": Command("shardfun.cli.run", "start a node and go on where it stopped"),
    "status": Command("shardfun.cli.status", "ask a running node how it is"),
    "send": Command("shardfun.cli.send", "send a message to a function of a running node"),
    "ask": Command("shardfun.cli.ask", "send a message to a function of a running node, and print its reply"),
    "query": Command("shardfun.cli.query", "look at the state of an address while the node runs, or list ids"),
    "checkpoint": Command("shardfun.cli.checkpoint", "take a checkpoint now, and wait until it is complete"),
    "inspect": Command("shardfun.cli.inspect", "look at what a stopped node has stored"),
    "dead-letters": Command("shardfun.cli.dead_letters", "look at parked messages, send them again, or delete them"),
    "simulate": Command("shardfun.cli.simulate", "test the protocol in a simulated world, under faults, by seed"),
    "chaos": Command("shardfun.cli.chaos", "kill and stop the processes of a private copy of a node, and compare its results"),
    "bench": Command("shardfun.cli.bench", "measure throughput and recovery on this machine"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. Does not raise for anything a user or an operator can cause."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not __debug__:
        _say("assertions are switched off, and shardfun relies on them; start Python without -O and without PYTHONOPTIMIZE")
        return EXIT_USAGE
    debug = "--debug" in arguments
    try:
        options = _parser(_asked_for(arguments)).parse_args(arguments)
        code = options.func(options)
        sys.stdout.flush()
    except SystemExit as ended:  # argparse: --help, --version, a usage error
        return ended.code if isinstance(ended.code, int) else EXIT_USAGE
    except BrokenPipeError:
        # The reader of our output has gone (``| head``). Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except BaseException as error:  # noqa: BLE001 - the last line of defence: whatever it is, a person reads one line
        return report(error, debug=debug)
    return int(code or 0)


# ---- errors --------------------------------------------------------------------------------------------------------------
def report(error: BaseException, *, debug: bool) -> int:
    """Say what went wrong, one line for each problem, on standard error; returns the exit code.

    Args:
        debug: with the stack trace.
    """
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    causes = _leaves(error)
    known = [cause for cause in causes if isinstance(cause, ShardfunError)]
    unexpected = [cause for cause in causes if not isinstance(cause, (ShardfunError, KeyboardInterrupt))]
    for problem in dict.fromkeys(text for cause in known for text in _problems(cause)):
        _say(problem)
    for cause in unexpected:
        hint = (
            "please report it with the lines above" if debug else "this is a bug: please report it with the output of --debug"
        )
        _say(f"unexpected {type(cause).__name__}: {_one_line(str(cause)) or 'no message'}; {hint}")
    if unexpected:
        return EXIT_INTERNAL
    return known[0].exit_code if known else EXIT_INTERRUPTED


def _leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group (nurseries make groups), or the error alone."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _problems(error: ShardfunError) -> tuple[str, ...]:
    texts = error.problems if isinstance(error, ConfigurationError) else (str(error),)
    return tuple(_one_line(text) or error.code for text in texts)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _say(text: str) -> None:
    print(f"shardfun: error: {text}", file=sys.stderr)


# ---- arguments -----------------------------------------------------------------------------------------------------------
class _Parser(argparse.ArgumentParser):
    """Usage errors in the form of all other errors."""

    def error(self, message: str) -> None:  # type: ignore[override]  # does not return, either
        _say(f"{_one_line(message)}; see '{self.prog} --help'")
        raise SystemExit(EXIT_USAGE)


def _asked_for(arguments: Sequence[str]) -> str | None:
    """The command, which is the first argument that is no option: no option of ``shardfun`` itself takes a value."""
    return next((argument for argument in arguments if not argument.startswith("-")), None)


def _parser(asked_for: str | None) -> argparse.ArgumentParser:
    """The parser, with all options of the command asked for and only the names of the others."""
    raw = argparse.RawDescriptionHelpFormatter
    description = "Stateful functions in Python, exactly once."
    parser = _Parser(prog="shardfun", description=description, epilog=EPILOG, formatter_class=raw, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"shardfun {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        if name == asked_for:
            importlib.import_module(command.module).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=command.help)
    for each in (parser, *subparsers.choices.values()):
        if "--debug" not in each._option_string_actions:  # noqa: SLF001 - argparse has no public way to ask
            # Read by ``main`` before anything is parsed, so that it holds for errors of the parser's making, too.
            each.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show stack traces of errors")
    return parser


if __name__ == "__main__":
    sys.exit(main())
