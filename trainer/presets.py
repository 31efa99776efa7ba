"""Presets: named settings in TOML files, one table for `prepare` and one for `train`."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from algorithm.errors import InputError
from algorithm.intensities import NORMALISATIONS, STORED_RANGE, Normalisation

FOLDER = Path(__file__).parent / "presets"
TABLES = ("prepare", "train")
AUTO = "auto"
HU_RANGE = (-32768, 32767)  # what int16 holds
SEED_LIMIT = 2**63
# Settings that a preset may leave to the data set, and what stands for them till then (trainer/adapt.py).
FROM_DATA_SET: Mapping[str, Any] = MappingProxyType(
    {
        "spacing_zyx_mm": (1.0, 1.0, 1.0),
        "window_hu": HU_RANGE,
        "patch_shape_zyx": (16, 16, 32),
        "normalisation": "window",
    }
)
FEWEST_VOXELS = 16 * 16 * 32


@dataclass(frozen=True)
class PreparePreset:
    """What decides the content of the patch files, apart from the data set and its split.

    Attributes:
        spacing_zyx_mm: grid spacing that every case is resampled to.
        window_hu: lowest and highest value kept; what lies outside is clipped. Of z-scores, what is stored.
        patch_shape_zyx: voxels of a patch.
        train_patches: patches drawn from the training cases.
        val_patches: patches drawn from the validation cases.
        quotas: least share of the patches of either file that must hold a label, by label value or name. The share of
            "*" is parted evenly among all labels but background, and goes to those that no other quota names.
        seed: the only source of chance.
        normalisation: "window" in HU, or z-scores of each scan: `algorithm.intensities`.
        from_data_set: names of settings that `trainer.adapt` has yet to choose.
        patch_voxels: of a patch, at most, where its shape is chosen.

    """

    spacing_zyx_mm: tuple[float, float, float]
    window_hu: tuple[int, int]
    patch_shape_zyx: tuple[int, int, int]
    train_patches: int
    val_patches: int
    quotas: Mapping[str, float]
    seed: int = 0
    normalisation: Normalisation = "window"
    from_data_set: frozenset[str] = frozenset()
    patch_voxels: int = 64 * 128 * 128

    def __post_init__(self) -> None:
        if self.normalisation not in NORMALISATIONS:
            raise InputError(
                f"normalisation must be one of {', '.join(NORMALISATIONS)}, got {self.normalisation!r}"
            )
        if self.normalisation != "window" and self.window_hu != STORED_RANGE:
            raise InputError(
                f"window_hu is for normalisation window, but it is {self.normalisation}: leave one of them out"
            )
        if self.patch_voxels < FEWEST_VOXELS:
            raise InputError(f"patch_voxels must be at least {FEWEST_VOXELS}, got {self.patch_voxels}")
        if not all(0.1 <= spacing <= 100 for spacing in self.spacing_zyx_mm):
            raise InputError(f"spacing_zyx_mm must be 0.1 to 100 mm on every axis, got {self.spacing_zyx_mm}")
        low, high = self.window_hu
        if not HU_RANGE[0] <= low < high <= HU_RANGE[1]:
            raise InputError(f"window_hu must be LOW < HIGH within {HU_RANGE}, got {self.window_hu}")
        if min(self.patch_shape_zyx) < 1 or max(self.patch_shape_zyx) > 1024:
            raise InputError(f"patch_shape_zyx must be 1 to 1024 on every axis, got {self.patch_shape_zyx}")
        for name in ("train_patches", "val_patches"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for label, share in self.quotas.items():
            if not 0 <= share <= 1:
                raise InputError(f"a quota must be a share from 0 to 1, got {share} for label {label}")
        if not 0 <= self.seed < SEED_LIMIT:
            raise InputError(f"seed must be from 0 to 2**63 - 1, got {self.seed}")


@dataclass(frozen=True)
class Preset:
    """One preset file: its name, its [prepare] table, and its [train] table as it was written."""

    name: str
    prepare: PreparePreset
    train: dict[str, Any]


def preset_names() -> list[str]:
    """Return the names of the presets that are shipped."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_preset(name_or_path: str) -> Preset:
    """Read a shipped preset by its name, or any preset file by its path.

    Raises:
        InputError: no such preset, not TOML, a key that does not exist (the nearest one is named), a key that
            is missing, or a value out of its range.

    """
    path = _find(name_or_path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the preset {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"the preset {path} is not valid TOML: {error}") from error
    refuse_unknown(document, TABLES, where=f"the preset {path}")
    for table in TABLES:
        if not isinstance(document.get(table, {}), dict):
            raise InputError(f"{table} must be a table of settings in the preset {path}")
    if "prepare" not in document:
        raise InputError(f"the table [prepare] is required, but missing in the preset {path}")
    try:
        prepare = _prepare(document["prepare"], where=f"[prepare] of the preset {path}")
    except InputError as error:
        raise InputError(f"{error} (preset {path})" if str(path) not in str(error) else str(error)) from error
    return Preset(path.stem, prepare, document.get("train", {}))


def refuse_unknown(given: Iterable[str], known: Iterable[str], *, where: str) -> None:
    """Raise InputError for the first of `given` that is not among `known`, naming the nearest known one."""
    choices = list(known)
    for key in given:
        if key not in choices:
            near = difflib.get_close_matches(key, choices, n=1, cutoff=0.4)
            remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(choices)}"
            raise InputError(f"there is no setting {key} in {where}: {remedy}")


def _find(name_or_path: str) -> Path:
    if name_or_path in preset_names():
        return FOLDER / f"{name_or_path}.toml"
    path = Path(name_or_path)
    if path.suffix == ".toml" and path.is_file():
        return path
    names = preset_names()
    near = difflib.get_close_matches(name_or_path, names, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(f"a preset must be one of {', '.join(names)} or a .toml file, got {name_or_path}{hint}")


def _prepare(table: dict[str, Any], *, where: str) -> PreparePreset:
    known = [field.name for field in fields(PreparePreset) if field.name != "from_data_set"]
    refuse_unknown(table, known, where=where)
    left = frozenset(name for name in FROM_DATA_SET if table.get(name) == AUTO)
    settings: dict[str, Any] = {"from_data_set": left}
    if table.get("normalisation", "window") not in ("window", AUTO):
        settings["window_hu"] = STORED_RANGE
    for field in fields(PreparePreset):
        if field.default is MISSING and field.name not in (*table, *settings):
            raise InputError(f"{field.name} is required, but missing in {where}")
    for name, value in table.items():
        if name in left:
            settings[name] = FROM_DATA_SET[name]
        elif name == "normalisation":
            settings[name] = value
        elif name == "spacing_zyx_mm":
            settings[name] = _numbers(value, 3, (int, float), name, where)
        elif name in ("window_hu", "patch_shape_zyx"):
            settings[name] = _numbers(value, 2 if name == "window_hu" else 3, (int,), name, where)
        elif name == "quotas":
            settings[name] = _quotas(value, where)
        elif isinstance(value, bool) or not isinstance(value, int):
            raise InputError(f"{name} must be a whole number, got {value!r} in {where}")
        else:
            settings[name] = value
    return PreparePreset(**settings)


def _numbers(value: Any, count: int, kinds: tuple[type, ...], name: str, where: str) -> tuple[Any, ...]:
    kind = "whole numbers" if kinds == (int,) else "numbers"
    if (
        not isinstance(value, list)
        or len(value) != count
        or any(isinstance(item, bool) or not isinstance(item, kinds) for item in value)
    ):
        raise InputError(f"{name} must be a list of {count} {kind}, got {value!r} in {where}")
    return tuple(float(item) if float in kinds else item for item in value)


def _quotas(value: Any, where: str) -> Mapping[str, float]:
    if not isinstance(value, dict) or any(
        isinstance(share, bool) or not isinstance(share, (int, float)) for share in value.values()
    ):
        raise InputError(f'quotas must be a table such as {{"1" = 0.3}}, got {value!r} in {where}')
    return MappingProxyType({label: float(share) for label, share in value.items()})
