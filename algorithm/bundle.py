"""The model bundle: weights and everything that inference must know, in `model.safetensors` and `model.json`.

A bundle that goes from coarse to fine also holds the network of the coarse pass, in `coarse.safetensors` and
`coarse.json`. A bundle is a folder, or a tarball of one. Pickles are refused: a file that can run code is no model.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError

from algorithm.errors import InputError
from algorithm.files import check_replaceable, replacing
from algorithm.intensities import NORMALISATIONS, Normalisation
from algorithm.locate import CoarseToFine
from algorithm.network import UNet3D, unmet_by
from algorithm.postprocessing import Postprocessing
from algorithm.shipped import located
from algorithm.tarball import members, open_tarball

# Bundles of z-scores have the second version, so that a release that would take them for HU refuses them.
FORMAT_VERSIONS = (1, 2, 3)
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
COARSE_WEIGHTS, COARSE_DESCRIPTION = "coarse.safetensors", "coarse.json"
FILES = (DESCRIPTION, WEIGHTS, COARSE_DESCRIPTION, COARSE_WEIGHTS)
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin")
PICKLE_MAGICS = (
    b"\x80\x02",
    b"\x80\x03",
    b"\x80\x04",
    b"\x80\x05",
    b"PK\x03\x04",
)  # bare, or in PyTorch's zip
LARGEST_BYTES = 4 << 30
LARGEST_DESCRIPTION = 16 << 20
BESIDE_TENSORS = 1 << 20  # the names and shapes at the start of the weights
WIDEST_NUMBER = 8  # bytes of a float64
LONGEST_NAME = 100
LONGEST_NOTICE = 300
LARGEST_PATCH = 1 << 25  # eight of 160 x 160 x 160
LARGEST_HU = 1e6
Blend = Literal["centre", "gaussian"]
Read = Callable[[str, int], bytes]  # of a file by its name, of at most so many bytes
S = TypeVar("S", Postprocessing, CoarseToFine)


@dataclass(frozen=True)
class Stitching:
    """How patch predictions become one volume: `blend` and the least overlap of neighbours, in voxels."""

    blend: Blend
    overlap_zyx: tuple[int, int, int]


@dataclass(frozen=True)
class Description:
    """What `model.json` holds.

    Attributes:
        network: arguments of `UNet3D`.
        labels: label names by value, background first.
        channels: channel names.
        spacing_zyx_mm: voxel spacing of the network's grid.
        window_hu: intensities are clipped to it.
        mean, std: of the clipped training patches, one a channel.
        normalisation: "window" where the three above are in HU; else they are in thousandths of a standard deviation
            of the scan's own channel, as `algorithm.intensities` makes them. Absent in older bundles: "window".
        patch_shape_zyx: what one forward pass sees.
        stitching: how patches are joined.
        postprocessing: which components of the labels are kept.
        bfloat16: whether validation patches got the same labels in bfloat16 as in float32, so that a processor that
            computes in it may. Absent in older bundles, which means no.
        temperature: of the probability maps, chosen on validation data; labels do not depend on it.
        coarse_to_fine: how a coarse pass chooses the box for this network; None where it sees whole scans.
        orientation: axis order that volumes are brought to; always LPS for x, y, z.
        provenance: data set name and hash, configuration, seed, scores, versions.
        notice: what is said of every scan that the bundle segments, such as that it is not for patients; empty for
            nothing. Scans are then not made into DICOM.

    """

    network: dict[str, Any]
    labels: tuple[str, ...]
    channels: tuple[str, ...]
    spacing_zyx_mm: tuple[float, float, float]
    window_hu: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch_shape_zyx: tuple[int, int, int]
    stitching: Stitching
    postprocessing: Postprocessing = field(default_factory=Postprocessing)
    bfloat16: bool = False
    temperature: float = 1.0
    coarse_to_fine: CoarseToFine | None = None
    orientation: str = "LPS"
    provenance: dict[str, Any] = field(default_factory=dict)
    normalisation: Normalisation = "window"
    notice: str = ""
    format_version: int = 0

    def __post_init__(self) -> None:
        """Choose the version of the format, whichever was given: the oldest whose readers heed all that is said."""
        version = 3 if self.notice else 1 if self.normalisation == "window" else 2
        object.__setattr__(self, "format_version", version)

    @property
    def sees(self) -> str:
        """The channels and, but for HU, their normalisation, for messages."""
        how = "" if self.normalisation == "window" else f" ({self.normalisation})"
        return ", ".join(self.channels) + how


@dataclass(frozen=True)
class Bundle:
    """A network with its weights, in evaluation mode on the CPU, its description, and the bundle of its coarse pass."""

    network: UNet3D
    description: Description
    coarse: Bundle | None = None

    @property
    def notices(self) -> list[str]:
        """What is to be said of its scans, of its coarse pass too."""
        own = [self.description.notice] if self.description.notice else []
        return own if self.coarse is None else [*own, *self.coarse.notices]

    def __post_init__(self) -> None:
        """Raise ValueError unless there is a coarse pass where the description has settings for one."""
        if (self.coarse is None) != (self.description.coarse_to_fine is None):
            raise ValueError("a bundle has both a coarse pass and settings for it, or none")


def write_bundle(folder: Path, bundle: Bundle, *, dtype: torch.dtype = torch.float32) -> None:
    """Write `folder` with its files; the bundle that was there before stays until the new one is complete.

    Args:
        folder: the bundle's.
        bundle: what is written.
        dtype: of the weights in the file; with float16 it has half the bytes. They are float32 again when read.

    Raises:
        InputError: the folder holds something else, or is a file; a weight is not finite, or not in `dtype`.

    """
    check_replaceable(folder, FILES)
    with replacing(folder) as temporary:
        temporary.mkdir()
        _write_part(temporary / WEIGHTS, temporary / DESCRIPTION, bundle, dtype)
        if bundle.coarse is not None:
            _write_part(temporary / COARSE_WEIGHTS, temporary / COARSE_DESCRIPTION, bundle.coarse, dtype)


def _write_part(weights_file: Path, description_file: Path, bundle: Bundle, dtype: torch.dtype) -> None:
    weights = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in _untied_state(bundle.network).items()
    }
    if any(not bool(tensor.isfinite().all()) for tensor in weights.values()):
        raise InputError(
            f"a weight is not finite in {dtype}, so no bundle is written; leave out --float16, or train anew"
        )
    weights_file.write_bytes(safetensors.torch.save(weights))
    text = json.dumps(asdict(bundle.description), indent=2, allow_nan=False)
    description_file.write_text(text + "\n")


def read_bundle(path: str | Path) -> Bundle:
    """Read a bundle from a folder or a tarball; nothing of a tarball is extracted to disk.

    "phantom" is the bundle that comes with the software, unless there is a folder of that name.

    Raises:
        InputError: something is missing, of the wrong type, does not fit the weights, or is a pickle.

    """
    path = located(path)
    read = _tarball_reader(path) if path.is_file() else _folder_reader(path)
    network, description = _read_part(read, path, DESCRIPTION, WEIGHTS)
    if description.coarse_to_fine is None:
        return Bundle(network, description)
    coarse_network, coarse_description = _read_part(read, path, COARSE_DESCRIPTION, COARSE_WEIGHTS)
    if coarse_description.coarse_to_fine is not None:
        raise InputError(
            f"{path / COARSE_DESCRIPTION}: 'coarse_to_fine' must be absent: a coarse pass has none itself"
        )
    coarse = Bundle(coarse_network, coarse_description)
    ours, theirs = description, coarse.description
    if (theirs.channels, theirs.normalisation) != (ours.channels, ours.normalisation):
        raise InputError(
            f"{path / COARSE_DESCRIPTION}: the coarse pass sees {theirs.sees}, but the network sees {ours.sees}"
        )
    return Bundle(network, description, coarse)


def _read_part(
    read: Read, path: Path, description_name: str, weights_name: str
) -> tuple[UNet3D, Description]:
    file = path / description_name
    description = _parse_description(read(description_name, LARGEST_DESCRIPTION), file)
    try:
        # Nothing is allocated before the weights are known to fit: a description may claim any size.
        with torch.device("meta"):
            network = UNet3D(**description.network)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{file}: 'network' does not describe a U-Net: {str(error).splitlines()[0]}"
        ) from None
    _check_against_network(description, network, file)
    numbers = sum(tensor.numel() for tensor in _untied_state(network).values())
    most = min(LARGEST_BYTES, WIDEST_NUMBER * numbers + BESIDE_TENSORS)
    _load_weights(network, read(weights_name, most), path / weights_name)
    return network.eval(), description


def read_bundles(paths: Sequence[Path]) -> list[Bundle]:
    """Read the members of an ensemble: bundles, or folders that hold nothing but bundles.

    Raises:
        InputError: as `read_bundle`; a folder that holds bundles and other things, as that of a training does.

    """
    return [read_bundle(member) for path in paths for member in _members(path)]


def _members(path: Path) -> list[Path]:
    if not path.is_dir() or (path / DESCRIPTION).is_file():
        return [path]
    visible = sorted(child for child in path.iterdir() if not child.name.startswith("."))
    inner = [child for child in visible if (child / DESCRIPTION).is_file()]
    other = next((child.name for child in visible if child not in inner), None)
    if inner and other is not None:
        raise InputError(
            f"{path} must be a bundle or hold nothing but the bundles of an ensemble, but holds {other} beside "
            f"{', '.join(child.name for child in inner)}; give {inner[0]}"
        )
    return inner or [path]


def _untied_state(network: UNet3D) -> dict[str, Any]:
    # Tied modules appear under two names; safetensors refuses shared memory, so one name is kept.
    seen: dict[int, str] = {}
    for name, parameter in network.state_dict(keep_vars=True).items():
        seen.setdefault(id(parameter), name)
    state = network.state_dict()
    return {name: state[name] for name in seen.values()}


def _folder_reader(folder: Path) -> Read:
    if not folder.is_dir():
        raise InputError(
            f"a model bundle is a folder or tarball with {DESCRIPTION} and {WEIGHTS}, but {folder} does not exist"
        )

    def read(name: str, most: int) -> bytes:
        file = folder / name
        if not file.is_file():
            pickle = next((other.name for other in sorted(folder.iterdir()) if other.suffix in PICKLES), None)
            if name == WEIGHTS and pickle:
                raise InputError(
                    f"{folder / pickle} is a pickle, which can run code: bundles hold {WEIGHTS} only; train it anew"
                )
            raise InputError(
                f"{folder} is no model bundle: it lacks {name}; 'decathlon train' writes one in RUN/bundle"
            )
        return _bounded(file.stat().st_size, most, file, file.read_bytes)

    return read


def _tarball_reader(path: Path) -> Read:
    if path.suffix in PICKLES:
        raise InputError(
            f"{path} is a pickle, which can run code: a bundle is a folder or tarball with {WEIGHTS}"
        )

    def read(name: str, most: int) -> bytes:
        content = None
        with open_tarball(path) as archive:
            for member in members(archive, path):
                if Path(member.name).name == name:
                    content = _of_member(archive, member, most, path / name)
        if content is not None:
            return content
        raise InputError(f"{path} holds no {name}: make the tarball of RUN/bundle with both of its files")

    return read


def _of_member(archive: tarfile.TarFile, member: tarfile.TarInfo, most: int, file: Path) -> bytes:
    stream = archive.extractfile(member) if member.isreg() else None
    if stream is None:
        raise InputError(f"{file} must be a regular file in its tarball, but is a link, a folder or a device")
    return _bounded(member.size, most, file, stream.read)


def _bounded(size: int, most: int, file: Path, read: Callable[[], bytes]) -> bytes:
    if size > most:
        raise InputError(f"{file} has {size} bytes, more than the {most} that such a bundle may hold")
    return read()


class _Fields:
    """Typed look-ups in a decoded `model.json`; a failure names the key and the file."""

    def __init__(self, values: object, file: Path) -> None:
        if not isinstance(values, dict):
            raise InputError(f"{file} must hold one JSON object, got {type(values).__name__}")
        self.values, self.file = values, file

    def get(self, key: str, kind: type | tuple[type, ...], what: str) -> Any:
        if key not in self.values:
            raise InputError(
                f"{self.file} lacks the key '{key}' ({what}); take the bundle as 'decathlon train' wrote it"
            )
        value = self.values[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.wrong(key, what)
        return value

    def flag(self, key: str) -> bool:
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def number(self, key: str, what: str, *, default: float) -> float:
        value = self.values.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.wrong(key, what)
        return value

    def numbers(
        self, key: str, what: str, *, count: int | None = None, whole: bool = False
    ) -> tuple[Any, ...]:
        value = self.get(key, list, what)
        kinds = int if whole else (int, float)
        right = all(isinstance(item, kinds) and not isinstance(item, bool) for item in value)
        if not right or (count is not None and len(value) != count):
            raise self.wrong(key, what)
        return tuple(value)

    def names(self, key: str, what: str) -> tuple[str, ...]:
        value = self.get(key, list, what)
        if not value or not all(isinstance(item, str) and _is_name(item) for item in value):
            raise self.wrong(key, what)
        return tuple(value)

    def wrong(self, key: str, what: str) -> InputError:
        return InputError(f"{self.file}: '{key}' must be {what}, got {json.dumps(self.values[key])[:80]}")


def _is_name(text: str) -> bool:
    """Return whether a label or a channel may be called so, on a terminal and in a table."""
    return 0 < len(text) <= LONGEST_NAME and text.isprintable()


_NOTICE = f"at most {LONGEST_NOTICE} characters on one line"
_NORMALISATION = " or ".join(f"'{name}'" for name in NORMALISATIONS)


def _parse_description(content: bytes, file: Path) -> Description:
    try:
        fields = _Fields(json.loads(content), file)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not valid JSON: {error}") from None
    version = fields.get("format_version", int, "the version of the format")
    if version not in FORMAT_VERSIONS:
        known = " to ".join(map(str, (FORMAT_VERSIONS[0], FORMAT_VERSIONS[-1])))
        raise InputError(
            f"{file} has format version {version}, this software reads {known}; use the release that wrote it"
        )
    fields.get("postprocessing", dict, "an object")
    stitching = _Fields(fields.get("stitching", dict, "an object with 'blend' and 'overlap_zyx'"), file)
    description = Description(
        network=fields.get("network", dict, "the arguments of the network"),
        labels=fields.names("labels", "the label names, background first"),
        channels=fields.names("channels", "the channel names"),
        spacing_zyx_mm=fields.numbers("spacing_zyx_mm", "three numbers in mm", count=3),
        window_hu=fields.numbers("window_hu", "two numbers in HU", count=2),
        mean=fields.numbers("mean", "a number for each channel"),
        std=fields.numbers("std", "a number for each channel"),
        patch_shape_zyx=fields.numbers("patch_shape_zyx", "three whole numbers", count=3, whole=True),
        stitching=Stitching(
            blend=stitching.get("blend", str, "'centre' or 'gaussian'"),
            overlap_zyx=stitching.numbers("overlap_zyx", "three whole numbers", count=3, whole=True),
        ),
        postprocessing=_parse_settings(fields, "postprocessing", Postprocessing) or Postprocessing(),
        bfloat16=fields.flag("bfloat16"),
        temperature=fields.number("temperature", "a number from 0.05 to 20", default=1.0),
        coarse_to_fine=_parse_settings(fields, "coarse_to_fine", CoarseToFine),
        orientation=fields.get("orientation", str, "'LPS'"),
        provenance=fields.get("provenance", dict, "an object"),
        normalisation=fields.get("normalisation", str, _NORMALISATION) if version > 1 else "window",
        notice=fields.get("notice", str, _NOTICE) if "notice" in fields.values else "",
    )
    _check_values(description, fields)
    return description


def _parse_settings(fields: _Fields, key: str, kind: type[S]) -> S | None:
    """Return the settings under a key, None where it is absent or null."""
    if fields.values.get(key) is None:
        return None
    values = fields.get(key, dict, "an object")
    known = {field.name: field.default for field in dataclasses.fields(kind)}
    for name, value in values.items():
        if name not in known:
            raise InputError(
                f"{fields.file}: '{key}' has '{name}', but this release knows {', '.join(known)}; "
                "use the release that wrote it"
            )
        number = isinstance(value, int | float) and not isinstance(value, bool)
        right = isinstance(value, bool) if isinstance(known[name], bool) else number or value == known[name]
        if not right:
            raise InputError(
                f"{fields.file}: '{key}.{name}' is {json.dumps(value)}, which is no value for it"
            )
    result = kind(**values)
    for name, what in result.faults():
        raise InputError(f"{fields.file}: '{key}.{name}' must be {what}, got {json.dumps(values[name])}")
    return result


def _check_values(description: Description, fields: _Fields) -> None:
    low, high = description.window_hu
    requirements = {
        "orientation": (description.orientation == "LPS", "'LPS'"),
        "spacing_zyx_mm": (
            all(0.1 <= size <= 100 for size in description.spacing_zyx_mm),
            "three numbers from 0.1 to 100 mm",
        ),
        "window_hu": (-LARGEST_HU <= low < high <= LARGEST_HU, "two rising numbers in HU"),
        "normalisation": (description.normalisation in NORMALISATIONS, _NORMALISATION),
        "mean": (
            len(description.mean) == len(description.channels)
            and all(abs(mean) <= LARGEST_HU for mean in description.mean),
            "a number for each channel",
        ),
        "std": (
            len(description.std) == len(description.channels)
            and all(1e-6 <= std <= LARGEST_HU for std in description.std),
            "a positive number for each channel",
        ),
        "notice": (
            len(description.notice) <= LONGEST_NOTICE and description.notice.isprintable(),
            _NOTICE,
        ),
        "temperature": (0.05 <= description.temperature <= 20, "a number from 0.05 to 20"),
        "patch_shape_zyx": (
            all(0 < size <= 1024 for size in description.patch_shape_zyx)
            and math.prod(description.patch_shape_zyx) <= LARGEST_PATCH,
            f"three sizes from 1 to 1024, together at most {LARGEST_PATCH} voxels",
        ),
        "stitching": (
            description.stitching.blend in ("centre", "gaussian")
            and all(
                0 <= overlap < size
                for overlap, size in zip(
                    description.stitching.overlap_zyx, description.patch_shape_zyx, strict=True
                )
            ),
            "'centre' or 'gaussian' with an overlap below the patch's size on every axis",
        ),
    }
    for key, (right, what) in requirements.items():
        if not right:
            raise fields.wrong(key, what)


def _check_against_network(description: Description, network: UNet3D, file: Path) -> None:
    classes, channels = network.arguments["num_classes"], network.arguments["in_channels"]
    if classes != len(description.labels) or channels != len(description.channels):
        raise InputError(
            f"{file}: the network has {channels} channels and {classes} classes, "
            f"but {len(description.channels)} channels and {len(description.labels)} labels are named"
        )
    shape = description.patch_shape_zyx
    if required := unmet_by(shape, network.arguments["depth"]):
        raise InputError(f"{file}: 'patch_shape_zyx' must have {required}, got {list(shape)}")


def _load_weights(network: UNet3D, content: bytes, file: Path) -> None:
    if content.startswith(PICKLE_MAGICS):
        raise InputError(
            f"{file} is a pickle under another name, which can run code: bundles hold safetensors only; train it anew"
        )
    try:
        weights = safetensors.torch.load(content)
    except SafetensorError as error:
        raise InputError(f"{file} is not a valid safetensors file: {error}") from None
    expected = {name: tuple(tensor.shape) for name, tensor in _untied_state(network).items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if missing := sorted(expected.keys() - found.keys()):
        raise InputError(
            f"{file} lacks the tensor '{missing[0]}' ({len(missing)} missing in all) that {DESCRIPTION} asks for"
        )
    if extra := sorted(found.keys() - expected.keys()):
        raise InputError(
            f"{file} holds the tensor '{extra[0]}' ({len(extra)} in all) that {DESCRIPTION} does not ask for"
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise InputError(
                f"{file}: tensor '{name}' has shape {found[name]}, but {DESCRIPTION} asks for {shape}"
            )
        if not weights[name].is_floating_point() or not bool(weights[name].isfinite().all()):
            raise InputError(
                f"{file}: tensor '{name}' holds values that are not finite numbers; train the model anew"
            )
    network.load_state_dict({name: weights[name].float() for name in expected}, strict=False, assign=True)
