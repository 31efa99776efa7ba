"""The peers that resample, onto our grid where they can, each ready to be timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.agreement import assert_close, assert_close_in_space
from benchmarks.compare import Peer
from benchmarks.volumes import NETWORK_SPACING_ZYX_MM, Shape, Size

Check = Callable[[Any, Any], None]


def simpleitk(
    volume: NDArray[Any],
    shape_zyx: Shape,
    threads: int,
    *,
    order: int,
    check: Check,
    difference: str,
    name: str = "",
) -> Peer:
    """SimpleITK's resample filter, with the origin moved so that voxel edges agree."""

    def make() -> Callable[[], Any]:
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(volume)
        spacing = [a / b for a, b in zip(volume.shape[::-1], shape_zyx[::-1], strict=True)]
        resample = sitk.ResampleImageFilter()
        resample.SetInterpolator(
            {0: sitk.sitkNearestNeighbor, 1: sitk.sitkLinear, 3: sitk.sitkBSpline}[order]
        )
        resample.SetSize([int(n) for n in shape_zyx[::-1]])
        resample.SetOutputSpacing(spacing)
        resample.SetOutputOrigin([(each - 1) / 2 for each in spacing])
        resample.SetNumberOfWorkUnits(threads)
        return lambda: resample.Execute(image)

    def check_image(ours: Any, theirs: Any) -> None:
        import SimpleITK as sitk

        check(ours, sitk.GetArrayViewFromImage(theirs))

    return Peer(name or "SimpleITK", "SimpleITK", difference, make, check_image, threaded=True)


def scipy(
    volume: NDArray[Any], shape_zyx: Shape, *, order: int, mode: str, check: Check, difference: str
) -> Peer:
    """SciPy's zoom, with grid_mode=True."""

    def make() -> Callable[[], Any]:
        from scipy import ndimage

        factors = [b / a for a, b in zip(volume.shape, shape_zyx, strict=True)]
        return lambda: ndimage.zoom(volume, factors, order=order, mode=mode, grid_mode=True)

    return Peer("SciPy", "scipy", difference, make, check)


def torchio(
    volume: NDArray[Any], size: Size, *, check: Callable[[Any, Any, Any], None], difference: str, label: bool
) -> Peer:
    """TorchIO's Resample; `check` also gets the affine of the result."""

    def make() -> Callable[[], Any]:
        import torch
        import torchio as tio

        kind = tio.LabelMap if label else tio.ScalarImage
        affine = np.diag([*size.spacing_zyx_mm, 1.0])
        subject = tio.Subject(image=kind(tensor=torch.from_numpy(volume)[None], affine=affine))
        transform = tio.Resample(NETWORK_SPACING_ZYX_MM)
        return lambda: transform(subject)["image"]

    return Peer(
        "TorchIO",
        "torchio",
        difference,
        make,
        lambda ours, theirs: check(ours, theirs.data[0].numpy(), theirs.affine),
        threaded=True,
    )


def monai(
    volume: NDArray[Any],
    size: Size,
    *,
    mode: str | int,
    check: Callable[[Any, Any, Any], None],
    difference: str,
    then: Callable[[Any], Any] = lambda image: image,
    name: str = "MONAI",
) -> Peer:
    """MONAI's Spacing; `check` also gets the affine of the result."""

    def make() -> Callable[[], Any]:
        import torch
        from monai.data import MetaTensor
        from monai.transforms import Spacing

        affine = torch.diag(torch.tensor([*size.spacing_zyx_mm, 1.0], dtype=torch.float64))
        image = MetaTensor(torch.from_numpy(volume)[None], affine=affine)
        padding = "nearest" if isinstance(mode, int) else "border"
        transform = Spacing(NETWORK_SPACING_ZYX_MM, mode=mode, padding_mode=padding)
        return lambda: then(transform(image))

    return Peer(
        name,
        "monai",
        difference,
        make,
        lambda ours, theirs: check(ours, theirs[0].numpy(), theirs.affine.numpy()),
        threaded=not isinstance(mode, int),  # a spline order goes to SciPy
    )


def in_space(size: Size, within: float) -> Callable[[Any, Any, Any], None]:
    """Return a check for a peer with a grid of its own."""

    def check(ours: Any, theirs: Any, affine: Any) -> None:
        assert_close_in_space(
            ours,
            theirs,
            affine,
            input_shape=size.shape_zyx,
            input_spacing=size.spacing_zyx_mm,
            within=within,
        )

    return check


def close(within: float, border: int = 0) -> Check:
    return lambda ours, theirs: assert_close(ours, theirs, within=within, border=border)
