"""Cases that a training held out, and bundles that say which those were."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from algorithm.bundle import Bundle
from algorithm.errors import InputError
from trainer.parts import digest_of_cases
from trainer.patches import PatchFile
from trainer.prepare import FILES

log = logging.getLogger(__name__)


def held_out_cases(work: Path, bundles: Sequence[Bundle]) -> tuple[str, ...]:
    """Return the names of a folder's validation cases, which the bundles must have been trained without.

    A bundle that does not say what it was trained without gets a warning in the log.

    Raises:
        InputError: a bundle says that it held out others.

    """
    with PatchFile(work / FILES["validation"]) as patches:
        cases = patches.meta.validation_cases
    ours = digest_of_cases(cases)
    for bundle in bundles:
        theirs = bundle.description.provenance.get("held_out")
        if theirs is None:
            log.warning("the model does not say which cases it was trained without: it may have seen these")
        elif theirs != ours:
            raise InputError(
                f"{work} has other validation cases than the model was trained without, so it may have seen "
                "them; give the WORK that it was trained on"
            )
    return cases
