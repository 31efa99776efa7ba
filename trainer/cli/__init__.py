"""The `decathlon` command: one thin module a verb, loaded only when its verb is asked for."""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

from algorithm.errors import InputError
from algorithm.faults import broken_gpu, first_line, out_of_memory
from algorithm.logs import log_to_stderr

log = logging.getLogger(__name__)

VERBS = {
    "phantom": "make a synthetic CT or MR data set in Decathlon layout",
    "prepare": "resample, clip, split and sample a data set into patch files",
    "train": "train the 3D U-Net on prepared patches and write a model bundle",
    "search": "search for training settings with Hyperopt, on one machine or a Ray cluster",
    "tune": "choose a bundle's postprocessing and temperature on validation cases",
    "package": "turn a bundle into a tarball, add a coarse pass to it, or export it as ONNX",
    "predict": "segment an image or a folder of images with a model bundle",
    "evaluate": "score predictions against reference labels",
    "report": "make one offline HTML page of a training and its scores",
    "view": "look at a scan and its labels in a browser",
    "submission": "check predictions and zip them for the Decathlon leaderboard",
    "doctor": "examine a bundle, an output folder or a submission before it is used or uploaded",
}

OUT_OF_MEMORY = "out of memory: close other programs"
SMALLER = {  # what makes a verb need less
    "predict": ", or take --patches-at-once 1",
    "prepare": ", or take --threads 1",
    "evaluate": ", or take --threads 1",
    "submission": ", or take --threads 1",
    "train": ", or train with a smaller batch_size",
    "search": ", or train with a smaller batch_size",
}


@log_to_stderr()
def main(argv: list[str] | None = None) -> int:
    """Run one verb; return 0 when done, 1 when it failed, 130 when it was interrupted.

    Wrong usage exits with 2, as argparse does. Whatever goes wrong, the last line of stderr says it in one
    sentence.
    """
    arguments = sys.argv[1:] if argv is None else argv
    asked = next((word for word in arguments if not word.startswith("-")), None)
    try:
        run, parsed = _parse(arguments, asked)
        run(parsed)
        sys.stdout.flush()
    except InputError as error:
        return _failed(asked, str(error))
    except KeyboardInterrupt:
        _failed(asked, "interrupted; the same command continues")
        return 130
    except BrokenPipeError:
        # Python flushes stdout once more at exit; the reader is gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _failed(asked, "the reader of its output went away")
    except ModuleNotFoundError as error:
        log.debug("import", exc_info=True)
        return _failed(asked, f"{error.name} is not installed; pip install 'decathlon-unet[trainer]'")
    except OSError as error:
        if out_of_memory(error):
            return _out_of_memory(asked)
        log.debug("system", exc_info=True)
        file = f"{error.filename}: " if error.filename else ""
        return _failed(
            asked, f"{file}{(error.strerror or str(error)).lower()}; choose another place or free this one"
        )
    except RecursionError:
        log.debug("recursion", exc_info=True)
        return _failed(asked, "a file nests its values too deeply to be read")
    except Exception as error:
        if out_of_memory(error):
            return _out_of_memory(asked)
        if broken_gpu(error):
            log.debug("GPU", exc_info=True)
            return _failed(asked, f"the GPU failed ({first_line(error)}); the same command continues")
        log.exception("unexpected failure")
        return _failed(asked, f"unexpected {type(error).__name__}: {error}")
    return 0


def _parse(
    arguments: list[str], asked: str | None
) -> tuple[Callable[[argparse.Namespace], None], argparse.Namespace]:
    """Return what runs the verb asked for, and its parsed arguments; exit with 2 on wrong usage."""
    parser = argparse.ArgumentParser(prog="decathlon", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    parsers = {
        name: verbs.add_parser(
            name, help=summary, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        for name, summary in VERBS.items()
    }
    if asked is None:
        parser.parse_args(arguments)
        parser.error("a VERB is required")
    if asked not in VERBS:
        parser.error(f"there is no verb {asked!r}{_nearest(asked, VERBS)}; the verbs are {', '.join(VERBS)}")
    module = importlib.import_module(f"trainer.cli.{asked}")
    verb = parsers[asked]
    verb.description = module.__doc__
    verb.epilog = f"example:\n  {module.EXAMPLE}"
    module.add_arguments(verb)
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        _refuse(unknown[0], verb, parsed)
    return module.run, parsed


def _refuse(unknown: str, verb: argparse.ArgumentParser, parsed: argparse.Namespace) -> NoReturn:
    """Exit with 2 for an argument that is left over, naming an option near it of what was asked for."""
    words, options = [str(parsed.verb)], []
    parser: argparse.ArgumentParser | None = verb
    while parser is not None:
        options += [option for action in parser._actions for option in action.option_strings]
        below = next((a for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None)
        parser = None
        if below is not None:
            words.append(str(getattr(parsed, str(below.dest))))
            parser = below.choices[words[-1]]
    option = unknown.partition("=")[0]
    if option in options:  # it was given ahead of the word that it belongs to
        verb.error(f"{unknown!r} must stand behind {' '.join(words)!r}")
    verb.error(f"there is no argument {unknown!r}{_nearest(option, options)}")


def positive(text: str) -> int:
    """Parse an option that counts something: a whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def positive_number(text: str) -> float:
    """Parse an option that is a number above 0, as a time is."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")
    return number


def not_negative(text: str) -> int:
    """Parse an option that is a whole number from 0, as a seed is."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {number}")
    return number


def add_mirror(parser: argparse.ArgumentParser) -> None:
    """Declare --mirror, which `mirrored` reads."""
    parser.add_argument(
        "--mirror",
        choices=("x", "y", "z", "yx", "zx", "zy", "zyx"),
        default="",
        metavar="AXES",
        help="see each patch also mirrored along these axes, as in 'yx', and average: each doubles the time",
    )


def mirrored(axes: str) -> tuple[bool, bool, bool]:
    """Return for each of z, y and x whether it is among the axes."""
    return "z" in axes, "y" in axes, "x" in axes


def label_names(text: str) -> tuple[str, ...]:
    """Return the names of `--labels`, by value; InputError where they are none."""
    names = tuple(name.strip() for name in text.split(","))
    if len(names) < 2 or "" in names or len(set(names)) < len(names):
        raise InputError(f"--labels must be two or more different names, the background first, got {text!r}")
    return names


def _nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" where something known is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _out_of_memory(verb: str | None) -> int:
    log.debug("out of memory", exc_info=True)
    return _failed(verb, OUT_OF_MEMORY + SMALLER.get(verb or "", ""))


def _failed(verb: str | None, sentence: str) -> int:
    """Write the last line of stderr."""
    sys.stderr.write(f"decathlon {verb}: {' '.join(sentence.split())}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
