"""Examine what is about to be used or uploaded, offline: all that can be known to go wrong, one line each.

Lines begin with "error" (it would be refused, or be wrong), "warning" (it passes, but look at it) or "note".
With an error the exit status is 1.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from types import ModuleType

from algorithm.errors import InputError

EXAMPLE = "decathlon doctor submission submission.zip --dataset DATA"
SUBJECTS = ("bundle", "dataset", "output", "submission")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subjects, each with its own arguments."""
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    for name in SUBJECTS:
        module = _subject(name)
        subject = subjects.add_parser(
            name,
            help=module.SUMMARY,
            description=module.__doc__,
            epilog=f"example:\n  {module.EXAMPLE}",
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subject)


def run(args: argparse.Namespace) -> None:
    """Print every finding; fail with the first error."""
    findings = _subject(args.subject).examine(args)
    sys.stdout.write("".join(f"{finding}\n" for finding in findings))
    sys.stdout.flush()
    errors = [finding.sentence for finding in findings if finding.severity == "error"]
    if errors:
        rest = len(errors) - 1
        more = f" (and {rest} more error{'s' if rest > 1 else ''})" if rest else ""
        raise InputError(errors[0] + more)
    warnings = sum(finding.severity == "warning" for finding in findings)
    sys.stdout.write(f"no error, {warnings} warning{'' if warnings == 1 else 's'}\n")


def _subject(name: str) -> ModuleType:
    return importlib.import_module(f"trainer.doctor.{name}")
