"""The `decathlon` command: one thin module a verb, loaded only when its verb is asked for."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys

from algorithm.errors import InputError

VERBS = {
    "phantom": "make a synthetic CT data set in Decathlon layout",
    "prepare": "resample, clip, split and sample a data set into patch files",
    "train": "train the 3D U-Net on prepared patches and write a model bundle",
    "predict": "segment an image or a folder of images with a model bundle",
    "evaluate": "score predictions against reference labels",
    "submission": "check predictions and zip them for the Decathlon leaderboard",
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return 0 when done, 1 when it failed, 2 on wrong usage (argparse exits with it)."""
    arguments = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    parser = argparse.ArgumentParser(prog="decathlon", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    asked = next((word for word in arguments if not word.startswith("-")), None)
    for name, summary in VERBS.items():
        verb = verbs.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == asked:
            module = importlib.import_module(f"trainer.cli.{name}")
            verb.description = module.__doc__
            verb.epilog = f"example:\n  {module.EXAMPLE}"
            module.add_arguments(verb)
            verb.set_defaults(run=module.run)
    parsed = parser.parse_args(arguments)
    try:
        parsed.run(parsed)
    except InputError as error:
        sys.stderr.write(f"decathlon {parsed.verb}: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"decathlon {parsed.verb}: interrupted; the same command continues\n")
        return 130
    except Exception as error:
        logging.getLogger(__name__).exception("unexpected failure")
        sys.stderr.write(f"decathlon {parsed.verb}: unexpected {type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
