"""A bundle's network as ONNX, for other runtimes; the one module that imports onnx packages."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from dataclasses import asdict
from pathlib import Path

import torch

from algorithm.bundle import DESCRIPTION, Bundle
from algorithm.errors import InputError
from algorithm.files import check_replaceable, replacing

for talkative in ("onnx_ir", "onnxscript"):
    logging.getLogger(talkative).setLevel(logging.WARNING)

ONNX = "model.onnx"
INPUT, OUTPUT = "patches", "logits"
# How far ONNX Runtime may lie from PyTorch in float32, as a share of the norm of the logits; rounding makes 0.00001.
AGREEMENT = 1e-3


def export_onnx(folder: Path, bundle: Bundle) -> float:
    """Write `model.onnx` and `model.json` into a folder; return how far ONNX Runtime lies from PyTorch.

    The graph takes float32 `patches` (n, c, z, y, x), n free, resampled and normalised as `model.json` says, and
    returns their `logits` (n, K, z, y, x). The same description is in its metadata, under "decathlon-unet".

    Raises:
        InputError: the extra `onnx` is not installed; the bundle has a coarse pass; the folder holds something else.
        RuntimeError: ONNX Runtime computes something else than PyTorch; nothing is written then.

    """
    try:
        import onnx
        import onnxruntime  # noqa: F401  # so that a missing one is said before the export
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; pip install 'decathlon-unet[onnx]'") from None
    if bundle.coarse is not None:
        raise InputError(
            "a bundle with a coarse pass is two networks; export each of the two bundles it was made of"
        )
    check_replaceable(folder, (ONNX, DESCRIPTION))
    description, network = bundle.description, bundle.network.cpu().eval()
    shape = (1, len(description.channels), *description.patch_shape_zyx)
    patches = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of PyTorch's own exporter, which also talks
        program = torch.onnx.export(
            network,
            (patches,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            verbose=False,
        )
    assert program is not None
    text = json.dumps(asdict(description), indent=2, allow_nan=False) + "\n"
    model = program.model_proto
    onnx.helper.set_model_props(model, {"decathlon-unet": text})
    with replacing(folder) as temporary:
        temporary.mkdir()
        onnx.save(model, temporary / ONNX)
        (temporary / DESCRIPTION).write_text(text)
        return _difference(temporary / ONNX, bundle, patches)


def _difference(path: Path, bundle: Bundle, patches: torch.Tensor) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch in (patches, torch.cat((patches, patches.flip(-1)))):
        with torch.inference_mode():
            expected = bundle.network(batch)
        found = torch.from_numpy(session.run([OUTPUT], {INPUT: batch.numpy()})[0])
        share = float((found - expected).norm() / expected.norm())
        # Written so that a NaN disagrees.
        if not share < AGREEMENT:
            raise RuntimeError(f"ONNX Runtime lies {share:.2g} of the logits' norm from PyTorch")
        worst = max(worst, share)
    return worst
