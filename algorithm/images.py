"""Image files and DICOM folders in, label maps out. SimpleITK stays in here.

A file is read only after its header was found sane and its voxels complete: see `nifti`, `metaimage`, `nrrd`
and `payload` for what ITK alone lets pass.
"""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm import metaimage, nifti, nrrd
from algorithm.dicom import is_dicom, read_series, series_geometry
from algorithm.errors import InputError
from algorithm.files import replacing
from algorithm.geometry import Geometry, difference, numbers
from algorithm.intensities import Normalisation, Planes, Stored, rounded, standardised
from algorithm.itk import (
    ONE_AT_A_TIME,
    PIXEL_TYPES,
    VECTOR_TYPES,
    check_size,
    quiet,
    reason,
    wanted_volume,
)
from algorithm.memory import check_memory

log = logging.getLogger(__name__)

READERS = {
    ".nii.gz": "NiftiImageIO",
    ".nii": "NiftiImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
}
WRITABLE = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")

# The longest side of a volume: a patient is shorter than 10 m, and a side of under 1 mm means spacing in
# metres.
LONGEST_SIDE_MM = (1.0, 10_000.0)
LARGEST_M3 = 2.0  # a scan of a whole body has about 1
LONGEST_SPACING_MM = 50.0

# A written header must say the grid within these. NIfTI keeps float32: at 1 m from the origin it rounds to
# 0.00003 mm.
WRITTEN_ORIGIN_MM = 1e-4
WRITTEN_ORIGIN_RELATIVE = 1.2e-7
WRITTEN_SPACING_RELATIVE = 1e-6
WRITTEN_DIRECTION = 1e-6

PLANES_AT_ONCE = 32
MOST_CHANNELS = 1000

NOTHING: Planes = {}

# Stored CT values without their rescale put air at 0 and bone beyond this.
UNSCALED_BONE = 1500


def image_suffix(path: Path) -> str | None:
    """Return the image suffix of a file name (".nii.gz", …), or None when it has none that can be read."""
    name = path.name.lower()
    return next((suffix for suffix in READERS if name.endswith(suffix)), None)


def case_name(path: Path) -> str:
    """Return the file or folder name without its image suffix: "pancreas_001.nii.gz" → "pancreas_001"."""
    suffix = image_suffix(path)
    return path.name[: -len(suffix)] if suffix else path.name


def list_images(folder: Path, *, with_broken: bool = False) -> list[Path]:
    """Return the image files of a folder by name; hidden files (macOS "._*" among them) are no images.

    With `with_broken`, links to nowhere and pipes are listed too, so that reading them fails and says so.
    Raises InputError when `folder` is no folder, or two files would have one case name.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{folder} must be a folder of images, but it {what}")
    found = sorted(
        path
        for path in folder.iterdir()
        if image_suffix(path)
        and not path.name.startswith(".")
        and (path.is_file() or (with_broken and not path.is_dir()))
    )
    by_case: dict[str, Path] = {}
    for path in found:
        other = by_case.setdefault(case_name(path), path)
        if other != path:
            raise InputError(
                f"{folder} holds {other.name} and {path.name}, two images of one case; keep one of them"
            )
    return found


def read_image(path: Path, channels: Sequence[str] = ()) -> sitk.Image:
    """Read a 3-D image from a file or from a folder that holds one DICOM series.

    Formats by suffix: .nii.gz, .nii, .mha, .mhd, .nrrd, .nhdr. A 4-D NIfTI or MetaImage with a single time point
    is read as its one volume. A left-handed direction is kept. Where `channels` names several, the file must hold as
    many, along the fourth axis of a NIfTI or MetaImage, or as the numbers of a MetaImage's voxel; the image is 4-D or
    of vectors then.

    Raises InputError in one sentence: no such file or no known suffix; damaged, cut off or empty data; not
    one 3-D volume of one number per voxel, or of the channels; a grid with a spacing that is not > 0, sheared axes
    or a longest side outside 1 mm to 10 m; more than 8 GiB claimed; voxels kept outside the header's folder; for
    folders, what `algorithm.dicom.read_series` refuses.
    """
    path = Path(path)
    image = _read(path, channels)
    return image if path.is_dir() else _with_lost_values(path, image, channels)


def _read(path: Path, channels: Sequence[str]) -> sitk.Image:
    """Read an image as ITK does, once it was found sound."""
    _refuse_unnameable(path)
    image: sitk.Image
    if path.is_dir():
        if len(channels) > 1:
            raise InputError(f"{path} must be {wanted_volume(channels)} in a file, but is a folder")
        image = read_series(path)
        check_sides(path, Geometry.of(image))
        return image
    with quiet(), open_image(path, whole=True, channels=channels) as reader:
        try:
            with ONE_AT_A_TIME:
                image = reader.Execute()
        except (RuntimeError, MemoryError) as error:
            raise InputError(f"{path} cannot be read: {reason(error)}") from None
        if (extra := image.GetDimension() - 3) and image.GetSize()[3] == 1:
            image = sitk.Extract(image, (*image.GetSize()[:3], *[0] * extra))
    return image


def _with_lost_values(path: Path, image: sitk.Image, channels: Sequence[str]) -> sitk.Image:
    """Put back the NaN and infinite voxels of a NIfTI, which ITK turned into 0."""
    lost = _lost_planes(path, channels)
    if not lost:
        return image
    voxels = sitk.GetArrayFromImage(image)
    planes = voxels.reshape(-1, *voxels.shape[-2:])
    for number, plane in lost.items():
        np.copyto(planes[number], plane, where=~np.isfinite(plane))
    restored = sitk.GetImageFromArray(voxels, isVector=False)
    restored.CopyInformation(image)
    return restored


def _lost_planes(path: Path, channels: Sequence[str]) -> Planes:
    if READERS[image_suffix(path) or ""] != "NiftiImageIO":
        return {}
    return nifti.not_finite(path, nifti.check_header(path, channels))


def _refuse_unnameable(path: Path) -> None:
    # SimpleITK ends the process on a name that is not UTF-8.
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{str(path)!r} must have a name in UTF-8 to be read or written; rename it"
        ) from None


def read_geometry(path: Path, channels: Sequence[str] = ()) -> Geometry:
    """Read the grid of an image without its voxels; InputError as `read_image`, but for damaged voxels."""
    path = Path(path)
    _refuse_unnameable(path)
    if path.is_dir():
        geometry = series_geometry(path)
        check_sides(path, geometry)
        return geometry
    with quiet(), open_image(path, whole=False, channels=channels) as reader:
        return Geometry.of(reader)


def stated_channels(path: Path) -> int:
    """Return how many numbers an image file states for each place, 1 for a folder; InputError as `read_geometry`."""
    path = Path(path)
    _refuse_unnameable(path)
    if path.is_dir():
        return 1
    stated = {"NiftiImageIO": nifti.stated_channels, "MetaImageIO": metaimage.stated_channels}
    count = stated.get(READERS[_check_file(path)], lambda _: 1)(path)
    if count > MOST_CHANNELS:
        raise InputError(
            f"{path} claims {count} channels, and the limit is {MOST_CHANNELS}; check its header"
        )
    return count


def voxel_file(path: Path) -> Path:
    """Return the file that holds an image file's voxels, itself or one beside it; InputError as `read_geometry`."""
    named = {"MetaImageIO": metaimage.voxel_file, "NrrdImageIO": nrrd.voxel_file}
    return named.get(READERS[_check_file(path)], Path)(path)


@contextmanager
def open_image(path: Path, *, whole: bool, channels: Sequence[str] = ()) -> Iterator[sitk.ImageFileReader]:
    """Yield a reader that has read a header found sane; with `whole`, the voxels were found complete too.

    Raises:
        InputError: as `read_image`.

    """
    suffix = _check_file(path)
    with _unmistakable(path, suffix) as name:
        yield _reader(path, suffix, name, whole=whole, channels=channels)


@contextmanager
def _unmistakable(path: Path, suffix: str) -> Iterator[Path]:
    """Yield a name by which ITK reads this file: for a.nii.gz it takes the voxels of an a.nii beside it."""
    beside = suffix == ".nii.gz" and path.with_suffix("").exists()
    if not beside and (path.name.endswith(suffix) or READERS[suffix] != "NiftiImageIO"):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"image{suffix}"
        link.symlink_to(path.absolute())
        yield link


def _reader(
    path: Path, suffix: str, name: Path, *, whole: bool, channels: Sequence[str]
) -> sitk.ImageFileReader:
    if len(channels) > 1 and READERS[suffix] == "NrrdImageIO":
        raise InputError(f"{path} must be {wanted_volume(channels)}, in a .nii.gz, .nii, .mha or .mhd")
    nifti_header = nifti.check_header(path, channels) if READERS[suffix] == "NiftiImageIO" else None
    if whole and nifti_header:
        nifti.check_data(path, nifti_header)
    meta_header = metaimage.check_header(path, channels) if READERS[suffix] == "MetaImageIO" else None
    nrrd_header = nrrd.check_header(path) if READERS[suffix] == "NrrdImageIO" else None
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(name))
    reader.SetImageIO(READERS[suffix])
    try:
        with ONE_AT_A_TIME:
            reader.ReadImageInformation()
    except (RuntimeError, MemoryError) as error:
        raise InputError(f"{path} has a header that cannot be read: {reason(error)}") from None
    size, components = tuple(reader.GetSize()), reader.GetNumberOfComponents()
    held, wanted_channels = components * math.prod(size[3:]), max(1, len(channels))
    if len(size) < 3 or held not in (components, wanted_channels):
        raise InputError(f"{path} must be {wanted_volume(channels)}, but its size is {size} (x, y, z, …)")
    kind = (PIXEL_TYPES if components == 1 else VECTOR_TYPES).get(reader.GetPixelID())
    if kind is None or held != wanted_channels:
        what = sitk.GetPixelIDValueAsString(reader.GetPixelID())
        raise InputError(f"{path} must have one number per voxel, but holds {what}s")
    wanted = check_size(path, size, components * kind.itemsize)
    if whole:
        check_memory(path, wanted)
    try:
        geometry = Geometry.of(reader)
    except ValueError as error:
        raise InputError(f"{path} has no usable grid: {error}") from None
    check_sides(path, geometry)
    if nifti_header:
        nifti.check_grid(path, nifti_header, geometry)
    if meta_header:
        metaimage.check_grid(path, meta_header, geometry)
    if whole and meta_header:
        metaimage.check_data(meta_header, wanted)
    if whole and nrrd_header:
        nrrd.check_data(nrrd_header, wanted)
    return reader


def _check_file(path: Path) -> str:
    """Return the image suffix of a file that is there and not empty."""
    suffix = image_suffix(path)
    if not path.exists():
        if path.is_symlink():
            raise InputError(
                f"{path} is a link to {path.readlink()}, which is not there; put the file itself there"
            )
        raise InputError(f"{path} does not exist; give an image file or a folder of DICOM slices")
    if not path.is_file():
        raise InputError(f"{path} must be an image file or a folder of DICOM slices, and is neither")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; copy or download it again")
    if suffix is None and is_dicom(path):
        raise InputError(f"{path} is one DICOM file; give the folder that holds the slices of its series")
    if suffix is None:
        raise InputError(f"{path} must end in one of {', '.join(READERS)}, or be a folder of DICOM slices")
    return suffix


def check_sides(what: object, geometry: Geometry) -> None:
    """Raise InputError unless a grid is as long as a patient may be; `what` is the word for it in the message."""
    sides = [n * s for n, s in zip(geometry.shape_zyx, geometry.spacing_zyx_mm, strict=True)]
    if not LONGEST_SIDE_MM[0] <= max(sides) <= LONGEST_SIDE_MM[1]:
        raise InputError(
            f"{what} covers {numbers(sides, 3)} mm (z, y, x), which is no patient; its spacing must be in mm"
        )
    if max(geometry.spacing_zyx_mm) > LONGEST_SPACING_MM:
        raise InputError(
            f"{what} has a spacing of {numbers(geometry.spacing_zyx_mm)} mm (z, y, x), and the limit is "
            f"{LONGEST_SPACING_MM:g} mm, beyond which no organ can be seen; correct its header"
        )
    if math.prod(sides) > LARGEST_M3 * 1e9:
        raise InputError(
            f"{what} covers {numbers(sides, 3)} mm (z, y, x), more than {LARGEST_M3:g} cubic metres, which is no "
            "patient; its spacing must be in mm"
        )


def hounsfield(image: sitk.Image) -> NDArray[np.int16]:
    """Return the voxels of a scalar image as int16 (z, y, x): rounded half to even, saturated to int16.

    The file's rescale was applied by the reader. NaN and -inf become the darkest finite value, +inf the brightest
    int16; InputError where no value is finite, since an empty label map would read as "no tumour". Warns, and
    changes nothing, where the values look like stored CT values without their rescale, or like an image that was
    normalised.
    """
    volume: NDArray[np.int16] = scan_voxels(image, ("CT",))[0]
    return volume


def scan_voxels(
    image: sitk.Image,
    channels: Sequence[str],
    normalisation: Normalisation = "window",
    lost: Planes = NOTHING,
) -> NDArray[np.int16]:
    """Return the voxels of an image as int16 (c, z, y, x), as a bundle or a preset of this normalisation wants them.

    Args:
        image: as `read_image` returns it for these channels.
        channels: their names.
        normalisation: "window" for `hounsfield` of each channel; else z-scores in thousandths, as
            `algorithm.intensities.standardised` makes them.
        lost: what ITK lost of the image, to be put back.

    Raises:
        InputError: a channel without a finite value, or of one value where z-scores are made.
        ValueError: the image has not as many channels.

    """
    return stored_voxels(stored_of(image, channels, lost), normalisation)


def stored_of(image: sitk.Image, channels: Sequence[str], lost: Planes = NOTHING) -> Stored:
    """Return an image's voxels as they are, as a view; arguments and ValueError as `scan_voxels`."""
    view: NDArray[Any] = sitk.GetArrayViewFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        view = np.moveaxis(view, -1, 0)
    elif view.ndim == 3:
        view = view[np.newaxis]
    if view.dtype.kind not in "iuf" or view.ndim != 4 or len(view) != len(channels):
        what = "one number per voxel" if len(channels) == 1 else f"{len(channels)} channels"
        shape = f"{view.shape} (c, z, y, x)" if view.ndim == 4 else f"{view.ndim} dimensions"
        raise ValueError(f"image must be 3-D with {what}, got {view.dtype} in {shape}")
    return Stored(view, channels, lost, image)  # SimpleITK's view does not keep its image alive


def stored_voxels(stored: Stored, normalisation: Normalisation) -> NDArray[np.int16]:
    """Return a scan as int16 (c, z, y, x); see `scan_voxels`."""
    if normalisation != "window":
        return standardised(stored, foreground=normalisation == "zscore_foreground")
    volume = rounded(stored)
    for view, channel in zip(stored.channels, volume, strict=True):
        _warn_of_values(view, channel)
    return volume


def _warn_of_values(view: NDArray[Any], volume: NDArray[np.int16]) -> None:
    darkest, brightest = int(volume.min()), int(volume.max())
    if darkest >= 0 and brightest > UNSCALED_BONE:
        log.warning(
            "no voxel is below 0 and the brightest is %d: if this is a CT, its values are not in HU "
            "(rescale intercept lost?)",
            brightest,
        )
    elif view.dtype.kind == "f" and brightest - darkest <= 8 and (np.rint(view[0]) != view[0]).any():
        log.warning(
            "values lie between %d and %d with fractions: they are not in HU (normalised?)",
            darkest,
            brightest,
        )


def read_scan(
    path: Path, channels: Sequence[str], normalisation: Normalisation = "window"
) -> tuple[NDArray[np.int16], Geometry]:
    """Read a scan as int16 (c, z, y, x), as `scan_voxels` makes it, with its grid; InputError as `read_image`."""
    path = Path(path)
    image = _read(path, channels)
    lost = {} if path.is_dir() else _lost_planes(path, channels)
    return scan_voxels(image, channels, normalisation, lost), Geometry.of(image)


def read_hounsfield(path: Path) -> tuple[NDArray[np.int16], Geometry]:
    """Read an image as int16 (z, y, x) with its grid. Raises InputError as `read_image` does."""
    volume, geometry = read_scan(path, ("CT",))
    return volume[0], geometry


def read_labels(path: Path) -> tuple[NDArray[np.uint8], Geometry]:
    """Read a label map as uint8 (z, y, x) with its grid.

    Raises InputError as `read_image` does, and when a value is not a whole number from 0 to 255.
    """
    image = read_image(path)
    view: NDArray[Any] = sitk.GetArrayViewFromImage(image)
    if view.dtype != np.uint8:
        whole = (view >= 0) & (view <= 255) & (view == np.trunc(view))
        if not whole.all():
            z, y, x = np.argwhere(~whole)[0].tolist()
            raise InputError(
                f"{path} must hold whole label values from 0 to 255, but has {view[z, y, x]} at voxel "
                f"({z}, {y}, {x}) (z, y, x)"
            )
    return view.astype(np.uint8), Geometry.of(image)


def label_image(labels: NDArray[np.uint8], geometry: Geometry) -> sitk.Image:
    """Return uint8 labels (z, y, x) as a SimpleITK image on a grid; ValueError when the two disagree."""
    if labels.dtype != np.uint8 or labels.shape != geometry.shape_zyx:
        raise ValueError(
            f"labels must be uint8 {geometry.shape_zyx} (z, y, x), got {labels.dtype} {labels.shape}"
        )
    image = sitk.GetImageFromArray(labels)
    geometry.set_on(image)
    return image


def write_labels(path: Path, labels: NDArray[np.uint8], geometry: Geometry) -> None:
    """Write uint8 labels (z, y, x) on a grid, complete or not at all; the format follows the suffix.

    Suffixes: .nii.gz, .mha, .mhd (with a .zraw beside it) and .nrrd, compressed, and .nii. MetaImage and NRRD
    keep the grid in full precision; NIfTI rounds it to float32.

    Raises InputError on another suffix or where nothing can be written, ValueError when labels and grid
    disagree, RuntimeError when the file, read back, does not hold the grid (origin within 1e-4 mm and 1.2e-7
    of itself, spacing within 1e-6 of itself, direction within 1e-6, and as much more as its axes are from
    perpendicular unit vectors) or not every voxel; it is removed then.
    """
    path = Path(path)
    _refuse_unwritable(path)
    _write_whole(path, label_image(labels, geometry), geometry)


def write_shares(path: Path, shares: NDArray[np.uint8], geometry: Geometry) -> None:
    """Write uint8 255ths (z, y, x) as float32 from 0 to 1 on a grid; formats and errors as `write_labels`."""
    path = Path(path)
    _refuse_unwritable(path)
    image = sitk.Image(shares.shape[::-1], sitk.sitkFloat32)
    for first in range(0, len(shares), PLANES_AT_ONCE):  # beside the image itself, no whole copy is made
        planes = sitk.GetImageFromArray(shares[first : first + PLANES_AT_ONCE])
        image[:, :, first : first + PLANES_AT_ONCE] = sitk.ShiftScale(planes, 0.0, 1 / 255, sitk.sitkFloat32)
    geometry.set_on(image)
    _write_whole(path, image, geometry)


def _refuse_unwritable(path: Path) -> None:
    _refuse_unnameable(path)
    if image_suffix(path) not in WRITABLE:
        raise InputError(f"{path} must end in one of {', '.join(WRITABLE)} to be written")


def _write_whole(path: Path, image: sitk.Image, geometry: Geometry) -> None:
    """Write an image, complete or not at all."""
    try:
        if image_suffix(path) == ".mhd":
            _write_pair(path, image, geometry)
        else:
            with replacing(path) as temporary:
                _write(temporary, image, geometry)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None


def _write(path: Path, image: sitk.Image, geometry: Geometry) -> None:
    """Write an image and read back what makes it complete."""
    with quiet():
        try:
            with ONE_AT_A_TIME:
                sitk.WriteImage(image, str(path), useCompression=True)
        except RuntimeError as error:
            raise OSError(reason(error)) from None
        try:
            with open_image(path, whole=True) as reader:
                read = Geometry.of(reader)
        except InputError as error:
            raise OSError(f"it was not written whole ({error}); is the disk full?") from None
    wrong = difference(
        read,
        geometry,
        origin_mm=WRITTEN_ORIGIN_MM + WRITTEN_ORIGIN_RELATIVE * max(map(abs, geometry.origin_xyz_mm)),
        # NIfTI keeps the rotation nearest to axes that are none (a header rounded to five digits), NRRD their lengths.
        spacing_relative=WRITTEN_SPACING_RELATIVE + geometry.skew,
        direction=WRITTEN_DIRECTION + geometry.skew,
    )
    if wrong:
        raise RuntimeError(f"{path} was written with another grid: {wrong}")


def _write_pair(path: Path, image: sitk.Image, geometry: Geometry) -> None:
    """Write a .mhd and its .zraw: the header, which makes the pair an image, is renamed into place last."""
    folder = path.with_name(f".tmp-{uuid.uuid4().hex[:8]}-{path.name}")
    folder.mkdir(parents=True)
    try:
        _write(folder / path.name, image, geometry)
        path.unlink(missing_ok=True)
        for part in sorted(folder.iterdir(), key=lambda part: part.name == path.name):
            part.replace(path.with_name(part.name))
    finally:
        shutil.rmtree(folder)
