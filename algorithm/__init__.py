"""What runs in the hospital: from a scan to a label map on the same grid.

import algorithm
labels = algorithm.segment(image, "RUN/bundle")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    import numpy as np
    import SimpleITK as sitk
    from numpy.typing import NDArray

    from algorithm.bundle import Bundle
    from algorithm.geometry import Geometry
    from algorithm.segmenter import Segmenter

__all__ = ["segment"]


@overload
def segment(image: sitk.Image, model: str | Path | Bundle | Segmenter) -> sitk.Image: ...


@overload
def segment(
    image: NDArray[np.number], model: str | Path | Bundle | Segmenter, geometry: Geometry
) -> NDArray[np.uint8]: ...


def segment(
    image: sitk.Image | NDArray[np.number],
    model: str | Path | Bundle | Segmenter,
    geometry: Geometry | None = None,
) -> sitk.Image | NDArray[np.uint8]:
    """Segment one scan in memory; the labels lie on exactly its grid.

    Args:
        image: a 3-D scalar CT in HU: a SimpleITK image, or an array (z, y, x) of any integer or floating type. Where
            the bundle has several channels, a 4-D image or one of vectors, or an array (c, z, y, x), in their order.
        model: the path of a bundle, a bundle, or, for many scans, a `Segmenter`, which keeps the network loaded.
        geometry: where an array lies in the patient; a SimpleITK image knows it.

    Returns:
        uint8 labels: an image for an image, an array (z, y, x) for an array.

    Raises:
        InputError: the bundle cannot be used, or wants other channels; a grid whose longest side is no patient's.
        TypeError: neither image nor array, an array without a geometry, or an image with one.
        ValueError: an image that is not of numbers, or an array that does not have the shape of its geometry.

    """
    import numpy as np
    import SimpleITK as sitk

    from algorithm.bundle import Bundle, read_bundle
    from algorithm.geometry import Geometry
    from algorithm.images import check_sides, stored_voxels
    from algorithm.intensities import Stored
    from algorithm.segmenter import Segmenter, refuse_other_channels

    if not isinstance(model, Segmenter):
        model = Segmenter(model if isinstance(model, Bundle) else read_bundle(Path(model)))
    if isinstance(image, sitk.Image):
        if geometry is not None:
            raise TypeError("a SimpleITK image knows its geometry; give one only with an array")
        check_sides("the image", Geometry.of(image))
        return model.segment(image)
    if not isinstance(image, np.ndarray) or isinstance(image, np.ma.MaskedArray):
        raise TypeError(
            f"a scan must be a SimpleITK image or a plain NumPy array, got {type(image).__name__}"
        )
    if geometry is None:
        raise TypeError("an array needs the geometry that says where it lies in the patient")
    if image.dtype.kind not in "iuf":
        raise ValueError(f"a scan must be of integers or floating-point numbers, got {image.dtype}")
    check_sides("the array", geometry)
    channels = model.description.channels
    if image.ndim not in (3, 4) or image.shape[-3:] != geometry.shape_zyx:
        raise ValueError(f"an array on this geometry must have shape {geometry.shape_zyx}, got {image.shape}")
    native = image.astype(image.dtype.newbyteorder("="), copy=False)
    if native.dtype.kind == "f" and native.dtype not in (np.float32, np.float64):
        native = native.astype(np.float64 if native.dtype.itemsize > 8 else np.float32)
    stored = Stored(native[np.newaxis] if native.ndim == 3 else native, channels)
    refuse_other_channels(channels, len(stored.channels))
    return model.labels(stored_voxels(stored, model.description.normalisation), geometry)
