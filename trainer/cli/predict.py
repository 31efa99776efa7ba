"""Segment an image, a folder of images or a folder of DICOM slices; label maps lie on each scan's own grid.

A result has its scan's name and format (.nii.gz for DICOM, .dcm with --dicom-seg). The same command continues a run
that was stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from algorithm.errors import printable
from trainer.cli import add_mirror, mirrored, positive

EXAMPLE = "decathlon predict DATA/Task07_Pancreas/imagesTs --model RUN/bundle --out PRED"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "source", type=Path, metavar="IMAGE_OR_FOLDER", help=".nii.gz .nii .mha .mhd .nrrd, or a folder"
    )
    parser.add_argument(
        "--model",
        type=Path,
        nargs="+",
        required=True,
        metavar="BUNDLE",
        help="model bundle: a folder or a tarball; of several the probabilities are averaged; phantom is one that "
        "comes with the software and was trained on synthetic scans: for a first try, not for patients",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="PRED", help="folder for the label maps")
    parser.add_argument(
        "--held-out",
        type=Path,
        metavar="WORK",
        help="segment only the validation cases of the folder that decathlon prepare wrote",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … (default: the first GPU, else the CPU)")
    add_mirror(parser)
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="also write PRED/probabilities: a map of each label's probability, and of the uncertainty",
    )
    parser.add_argument(
        "--engine",
        choices=("auto", "torch", "openvino"),
        default="auto",
        help="what runs the network on a CPU (default: OpenVINO if it is installed and the scan is not small)",
    )
    parser.add_argument(
        "--patches-at-once",
        type=positive,
        default=1,
        help="patches a forward pass (default: 1, which needs the least memory)",
    )
    parser.add_argument(
        "--dicom-seg",
        action="store_true",
        help="write a DICOM Segmentation of a folder of slices (pip install 'decathlon-unet[dicom]')",
    )


def run(args: argparse.Namespace) -> None:
    """Run the verb."""
    from algorithm.predict import predict
    from trainer.train import choose_device

    cases = None
    if args.held_out is not None:
        from algorithm.bundle import read_bundles
        from trainer.held_out import held_out_cases

        cases = held_out_cases(args.held_out, read_bundles(args.model))
    written = predict(
        args.source,
        args.model,
        args.out,
        device=choose_device(args.device),
        patches_at_once=args.patches_at_once,
        mirror_zyx=mirrored(args.mirror),
        engine=args.engine,
        probabilities=args.probabilities,
        dicom_seg=args.dicom_seg,
        cases=cases,
    )
    for path in written:
        sys.stdout.write(f"{printable(str(path))}\n")
