"""What every script's command line shares: flags, presets, and errors of one line."""

import argparse
import math
import os
import shlex
import sys
from pathlib import Path

from common.memory import keep_freed_memory


def fail(message):
    """Ends the script because of a mistake of the user's: one line, exit code 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def note(message):
    """Prints a message for a person on stderr, so that stdout holds only the results."""
    print(message, file=sys.stderr, flush=True)


def first_line(error):
    """The first line of an exception's message; its class name where the message is empty."""
    lines = str(error).splitlines()
    if lines:
        return lines[0]
    return type(error).__name__


# --- Types for argparse ---
def positive_int(text):
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text}")
    return number


def positive_float(text):
    """A finite number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, not {text}")
    return number


def fraction(text):
    """A number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, not {text}")
    return number


def seed(text):
    """A seed that NumPy and all three backends take."""
    number = int(text)
    if not 0 <= number < 2**32:
        raise argparse.ArgumentTypeError(f"expected 0 to 2**32 - 1, not {text}")
    return number


def given(command, flag):
    """Whether the command line holds this flag, rather than its default or its preset's value.

    Args:
        command: the arguments as one string, as `parse` keeps them in `args.command`.
        flag: "--epochs", say. An abbreviated flag on the command line counts, too.
    """
    words = [word.split("=")[0] for word in shlex.split(command)]
    return any(len(word) > 2 and word.startswith("--") and flag.startswith(word) for word in words)


# --- Parsers ---
def parse(parser, presets, argv=None):
    """Adds the flags that every train.py has, and parses the command line.

    A preset only sets defaults: a flag given by hand overrides it.

    Args:
        parser: an argparse parser with the flags of the experiment.
        presets: {"quick" | "full" | "post" | "smoke": {name of a flag: value}}.
        argv: the arguments; default: those of the process.

    Returns:
        The namespace of all flags; `command` holds the arguments as one line for a shell.
    """
    add = parser.add_argument
    add(
        "--preset",
        choices=("quick", "full", "post"),
        default="quick",
        help="quick: minutes on a CPU; full: the best numbers; post: the post's own recipe",
    )
    add("--smoke", action="store_true", help="runs every line in seconds; proves no number")
    add("--data", metavar="PATH", help="your own data; default: data made by code")
    add("--seed", type=seed, default=0, help="of the weights and the batches; default: 0")
    add("--run-dir", type=Path, metavar="DIR", help="default: a new folder in runs/")
    add("--resume", action="store_true", help="continue a run that was stopped")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    if argv is None:
        argv = sys.argv[1:]
    if "" in argv:
        parser.error("an argument is empty")
    chosen, _ = parser.parse_known_args(argv)
    name = chosen.preset
    if chosen.smoke:
        name = "smoke"
    defaults = argparse.Namespace(**presets[name], command=shlex.join(argv))
    return parser.parse_args(argv, defaults)


def parser_of_predict(description):
    """A parser with the flags that every predict.py has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run-dir", type=Path, metavar="RUN", help="default: the newest run")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    return parser


# --- Scripts ---
def run(main):
    """Calls main() and turns what can happen to any script into one line.

    That is Ctrl-C, a reader of the output that stops reading (`| head`), and a disk that is full
    or read-only.
    """
    if os.environ.get("KERAS_BACKEND") != "jax":  # JAX would keep a heap for each shape.
        keep_freed_memory()
    try:
        try:
            main()
        finally:
            print(end="", flush=True)  # A broken pipe shows here, not when Python exits.
    except KeyboardInterrupt:
        message = "\nstopped"
        if Path(sys.argv[0]).name == "train.py":
            message += "; the same command with --resume continues"
        print(message, file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno is None:
            raise  # Raised by our own code, not by the system: a bug.
        fail(f"cannot read or write {error.filename or 'the disk'}: {error.strerror}")
