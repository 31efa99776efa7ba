"""Turn a bundle into a tarball for /opt/ml/model, add a coarse pass to it, or export it as ONNX."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from algorithm.errors import InputError
from algorithm.locate import CoarseToFine

EXAMPLE = "decathlon package RUN/bundle --out model.tar.gz"
TARBALL = (".tar.gz", ".tgz")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    defaults = CoarseToFine()
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle: a folder or a tarball")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help="a tarball where it ends in .tar.gz, else a folder",
    )
    parser.add_argument(
        "--format",
        choices=("bundle", "onnx"),
        default="bundle",
        help="onnx: model.onnx and model.json in a folder, checked against PyTorch (default: bundle)",
    )
    parser.add_argument(
        "--coarse",
        type=Path,
        metavar="BUNDLE",
        help="a bundle of large voxels that finds the box for this one",
    )
    parser.add_argument(
        "--margin-mm",
        type=float,
        metavar="MM",
        help=f"added to each side of that box (default: {defaults.margin_mm:g})",
    )
    parser.add_argument(
        "--smallest-ml",
        type=float,
        metavar="ML",
        help="where the coarse pass finds less, the whole scan is segmented "
        f"(default: {defaults.smallest_ml:g}, a small part of any pancreas)",
    )
    parser.add_argument(
        "--float16", action="store_true", help="weights of half the bytes; ONNX and inference keep float32"
    )
    parser.add_argument(
        "--notice",
        metavar="TEXT",
        help="what is said of every scan that the bundle segments, such as 'Trained on synthetic scans.'",
    )


def run(args: argparse.Namespace) -> None:
    """Run the verb."""
    import dataclasses

    import torch

    from algorithm.bundle import LONGEST_NOTICE, read_bundle, write_bundle
    from trainer.onnx_export import export_onnx
    from trainer.package import with_coarse_pass, write_tarball

    if args.out.resolve().is_relative_to(args.bundle.resolve()):
        raise InputError(
            f"--out must be another place than the bundle itself, and not inside it, got {args.out} and {args.bundle}"
        )
    bundle = read_bundle(args.bundle)
    given = {
        name: getattr(args, name) for name in ("margin_mm", "smallest_ml") if getattr(args, name) is not None
    }
    if given and args.coarse is None:
        raise InputError(
            f"--{next(iter(given)).replace('_', '-')} is for a coarse pass; give one with --coarse"
        )
    if args.coarse is not None:
        settings = CoarseToFine(**given)
        bundle = with_coarse_pass(bundle, read_bundle(args.coarse), settings)
    if args.notice is not None:
        if not 0 < len(args.notice) <= LONGEST_NOTICE or not args.notice.isprintable():
            raise InputError(f"--notice must be 1 to {LONGEST_NOTICE} characters on one line")
        if bundle.description.notice:
            raise InputError(
                f"{args.bundle} has a notice, which stays with it ({bundle.description.notice}); leave out --notice"
            )
        description = dataclasses.replace(bundle.description, notice=args.notice)
        bundle = dataclasses.replace(bundle, description=description)
    dtype = torch.float16 if args.float16 else torch.float32
    tarball = args.out.name.endswith(TARBALL)
    if args.format == "onnx":
        if tarball:
            raise InputError(f"--format onnx writes a folder, got --out {args.out}; leave out the suffix")
        share = export_onnx(args.out, bundle)
        sys.stdout.write(f"{args.out}: ONNX Runtime within {share:.1g} of PyTorch's logits\n")
    elif tarball:
        write_tarball(args.out, bundle, dtype=dtype)
        sys.stdout.write(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB\n")
    else:
        write_bundle(args.out, bundle, dtype=dtype)
        sys.stdout.write(f"{args.out}\n")
