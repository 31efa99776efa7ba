"""Look at a scan and its labels in a browser, in three planes. Only this machine can; Ctrl-C ends it."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from pathlib import Path

import numpy as np

from algorithm.errors import InputError
from trainer.cli import label_names
from trainer.dataset import FILE_NAME, read_channel_names, read_label_names
from trainer.view import Server
from trainer.viewer import Scan

EXAMPLE = "decathlon view imagesTr/pancreas_001.nii.gz PRED/pancreas_001.nii.gz labelsTr/pancreas_001.nii.gz"
LARGEST_PORT = 65535
log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "image", type=Path, metavar="IMAGE", help="a scan: an image file or a folder of DICOM slices"
    )
    parser.add_argument("prediction", type=Path, metavar="LABELS", help="its label map")
    parser.add_argument(
        "reference", type=Path, nargs="?", metavar="REFERENCE", help="another label map to compare with"
    )
    parser.add_argument(
        "--labels",
        metavar="NAMES",
        help="names by value, such as background,pancreas,cancer (default: those of the dataset.json above)",
    )
    parser.add_argument(
        "--channel",
        type=int,
        default=0,
        metavar="N",
        help="which channel of an image of several, as MR tasks have, is shown (default: 0, the first)",
    )
    parser.add_argument(
        "--port", type=int, default=0, metavar="N", help="where to listen (default: any port that is free)"
    )


def run(args: argparse.Namespace) -> None:
    """Serve until Ctrl-C."""
    if not 0 <= args.port <= LARGEST_PORT:
        raise InputError(f"--port must lie in 0 to {LARGEST_PORT}, got {args.port}")
    if args.channel < 0:
        raise InputError(f"--channel must be at least 0, got {args.channel}")
    folder = _dataset_folder(args)
    channels = () if folder is None else read_channel_names(folder)
    scan = Scan.read(
        args.image.name, args.image, args.reference, args.prediction, channels=channels, channel=args.channel
    )
    try:
        server = Server(scan, _labels(args, folder, scan), port=args.port)
    except OSError as error:
        raise InputError(
            f"--port {args.port} cannot be listened on ({(error.strerror or str(error)).lower()}); "
            "leave it out to take one that is free"
        ) from None
    with server, contextlib.suppress(KeyboardInterrupt):
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        log.info("open this address in a browser of this machine; Ctrl-C ends the viewer")
        server.serve_forever()


def _dataset_folder(args: argparse.Namespace) -> Path | None:
    """Return the data set that the scan or a label map lies in, None where nothing says which it is."""
    for path in (args.prediction, args.reference, args.image):
        folder: Path | None = None if path is None else path.resolve().parent.parent
        if folder is not None and (folder / FILE_NAME).is_file():
            return folder
    return None


def _labels(args: argparse.Namespace, folder: Path | None, scan: Scan) -> list[str]:
    """Return a name for each value that a label map holds; InputError where `--labels` lacks one."""
    highest = int(np.max(scan.labelled, initial=0))
    names = ["background"] if folder is None else list(read_label_names(folder))
    if args.labels is not None:
        names = list(label_names(args.labels))
        if highest >= len(names):
            raise InputError(
                f"--labels must name each value from the background's 0 to {highest}, which a label map holds, "
                f"got {args.labels!r}"
            )
    return [*names, *(f"label {value}" for value in range(len(names), highest + 1))]
