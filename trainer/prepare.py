"""From a Decathlon data set to two patch files (sections 3.1 and 3.2 of the paper).

Stages: every case in use onto the common grid (WORK/volumes), a plan of all patches, the patches in shards
(WORK/shards), the shards into WORK/train.h5 and WORK/val.h5. Each result is renamed into place when complete,
so that a killed run continues where it was and ends with the same bytes.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.metadata
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import voxelcore
from algorithm.errors import InputError
from algorithm.intensities import STEPS
from algorithm.lock import alone_in, remove_leftovers
from algorithm.progress import progress
from trainer.adapt import adapted
from trainer.dataset import Dataset
from trainer.patches import PatchFile
from trainer.patchfile import (
    FORMAT_VERSION,
    EncodedPatch,
    PatchMeta,
    Statistics,
    encode_patch,
    merge_shards,
    shard_is_complete,
    shard_statistics,
    write_shard,
)
from trainer.plan import Plan, Role, plan_patches
from trainer.presets import PreparePreset
from trainer.split import Split
from trainer.volumes import Volume, VolumeSettings, prepare_volumes

log = logging.getLogger(__name__)
FILES: dict[Role, str] = {"training": "train.h5", "validation": "val.h5"}
SHARDS = "shards"
OTHERS = "*"  # in quotas: all labels that are not named
SHARD_BYTES = 192 * 2**20  # of raw patches: what a kill may lose, and what is held compressed at a time


def prepare(
    dataset: Dataset,
    work: Path,
    preset: PreparePreset,
    split: Split,
    *,
    threads: int | None = None,
) -> tuple[PatchMeta, PatchMeta]:
    """Write WORK/train.h5, WORK/val.h5 and WORK/split.json; return the attributes of both patch files.

    Args:
        dataset: as read from its folder.
        work: the folder to write to; what it already holds of the same settings is kept.
        preset: grid, window, patches, quotas and seed.
        split: names of the cases on either side.
        threads: how many work at a time; None: as many as voxelcore uses.

    Raises:
        InputError: a case that cannot be used, a quota that cannot be met, another run at work in `work`.

    """
    threads = voxelcore.get_threads() if threads is None else threads
    quotas = resolve_quotas(preset.quotas, dataset.labels)
    by_name = {case.name: case for case in dataset.training}
    trained_on = [by_name[name] for name in split.training]
    preset = adapted(preset, dataset, trained_on, threads=threads)
    with alone_in(work, "decathlon prepare"):
        remove_leftovers(work, work / "volumes")
        volumes = _volumes(dataset, work, preset, split, threads)
        sources = _source_sha256(dataset, volumes)
        if OTHERS in preset.quotas:
            named = resolve_quotas({**preset.quotas, OTHERS: 0.0}, dataset.labels)
            others = {label: share for label, share in quotas.items() if label not in named}
            quotas = named | _held(others, dataset.labels, volumes, split)
        split.write(work / "split.json")
        if split.shared:
            log.warning(
                "OVER-FIT CHECK: %d of %d validation cases are trained on too; their scores say nothing",
                len(split.shared),
                len(split.validation),
            )
        common = {
            "format_version": FORMAT_VERSION,
            "dataset_name": dataset.name,
            "dataset_hash": sources,
            "labels": dataset.labels,
            "channels": dataset.channels,
            "spacing_zyx_mm": preset.spacing_zyx_mm,
            "window_hu": preset.window_hu,
            "normalisation": preset.normalisation,
            "patch_shape_zyx": preset.patch_shape_zyx,
            "seed": preset.seed,
            "training_cases": split.training,
            "validation_cases": split.validation,
            "overfit": bool(split.shared),
            "quota_labels": tuple(sorted(quotas)),
            "quota_shares": tuple(quotas[label] for label in sorted(quotas)),
        }
        train = _PatchFileJob(
            role="training",
            work=work,
            volumes=[volumes[name] for name in split.training],
            wanted={**common, "role": "training", "patches": preset.train_patches},
            quotas=quotas,
            threads=threads,
        )
        val = dataclasses.replace(
            train,
            role="validation",
            volumes=[volumes[name] for name in split.validation],
            wanted={**common, "role": "validation", "patches": preset.val_patches},
        )
        # Both before any work: a stale file must not lie beside a fresh one and be taken for its pair.
        train.remove_stale()
        val.remove_stale()
        training = train.run()
        statistics = {name: getattr(training, name) for name in ("mean", "std", "class_voxels")}
        val = dataclasses.replace(val, wanted={**val.wanted, **statistics})
        val.remove_stale()
        validation = val.run()
        shutil.rmtree(work / SHARDS, ignore_errors=True)
    return training, validation


def resolve_quotas(quotas: Mapping[str, float], labels: Sequence[str]) -> dict[int, float]:
    """Turn quotas by label name or value into quotas by value, without those of share 0.

    "*" stands for every label but background that is not named, of which each gets an even part of its share.

    Raises:
        InputError: a label that the data set does not name, the background, or a label named twice.

    """
    resolved: dict[int, float] = {}
    named = {OTHERS, *quotas}
    if share := quotas.get(OTHERS, 0.0):
        others = (v for v in range(1, len(labels)) if not {str(v), labels[v]} & named)
        resolved = dict.fromkeys(others, share / (len(labels) - 1))
    for key, share in quotas.items():
        if key == OTHERS:
            continue
        value = labels.index(key) if key in labels else int(key) if key.isdecimal() else -1
        if share == 0:
            continue
        if not 0 < value < len(labels):
            known = ", ".join(f"{number} ({name})" for number, name in enumerate(labels) if number)
            near = difflib.get_close_matches(key, labels[1:], n=1)
            hint = f", did you mean {near[0]}?" if near else ""
            raise InputError(
                f"a quota must be for one of the labels {known}, got {key}{hint}; drop it by --quota {key}=0"
            )
        if value in resolved:
            raise InputError(f"the label {value} ({labels[value]}) has two quotas: give it one")
        resolved[value] = share
    return resolved


def _held(
    quotas: Mapping[int, float], labels: Sequence[str], volumes: Mapping[str, Volume], split: Split
) -> dict[int, float]:
    """Return the quotas of labels that cases of both sides hold; the others are said."""
    held = {}
    for label, share in quotas.items():
        sides = (split.training, split.validation)
        if all(any(volumes[name].label_slices[label].any() for name in side) for side in sides):
            held[label] = share
        else:
            log.warning("no quota for %s, which no case of one side of the split holds", labels[label])
    return held


def _volumes(
    dataset: Dataset, work: Path, preset: PreparePreset, split: Split, threads: int
) -> dict[str, Volume]:
    used = {*split.training, *split.validation}
    cases = [case for case in dataset.training if case.name in used]
    settings = VolumeSettings(
        preset.spacing_zyx_mm, preset.window_hu, dataset.labels, dataset.channels, preset.normalisation
    )
    volumes = prepare_volumes(cases, work / "volumes", settings, threads=threads)
    return {
        volume.case: volume for volume in progress(volumes, total=len(cases), what="resampling", unit="cases")
    }


def _source_sha256(dataset: Dataset, volumes: Mapping[str, Volume]) -> str:
    content = [dataset.name, *dataset.labels, *dataset.channels]
    content += [f"{name} {volumes[name].sha256}" for name in sorted(volumes)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True)
class _PatchFileJob:
    """One patch file to be there in the end, with the attributes that are known before the work."""

    role: Role
    work: Path
    volumes: Sequence[Volume]
    wanted: Mapping[str, Any]
    quotas: Mapping[int, float]
    threads: int

    @property
    def path(self) -> Path:
        return self.work / FILES[self.role]

    def remove_stale(self) -> None:
        """Remove the file if it is there and not as wanted, and say why."""
        if not self.path.exists():
            return
        try:
            why = "; ".join(PatchFile(self.path).meta.differences(self.wanted))
        except InputError as error:
            why = str(error)
        if why:
            log.warning("%s is written again: %s", self.path.name, why)
            self.path.unlink()

    def run(self) -> PatchMeta:
        """Return the attributes of the file, which is written unless it is there."""
        if self.path.exists():
            meta = PatchFile(self.path).meta
            log.info("%s is kept: it holds the %d patches asked for", self.path.name, meta.patches)
            return meta
        folder = self._shard_folder()
        plan = plan_patches(
            self.volumes,
            self.wanted["patches"],
            patch_shape_zyx=self.wanted["patch_shape_zyx"],
            quotas=self.quotas,
            seed=self.wanted["seed"],
            role=self.role,
        )
        shards = self._write_shards(folder, plan)
        meta = self._meta(plan, shard_statistics(shards))
        merge_shards(shards, self.path, meta)
        shutil.rmtree(folder)
        return meta

    def _shard_folder(self) -> Path:
        """Return the folder of this file's shards, which is named by the settings; remove those of others."""
        digest = hashlib.sha256(json.dumps(dict(self.wanted), sort_keys=True).encode()).hexdigest()
        folder = self.work / SHARDS / f"{self.role}-{digest[:16]}"
        for other in folder.parent.glob(f"{self.role}-*"):
            if other != folder:
                shutil.rmtree(other)
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        return folder

    def _write_shards(self, folder: Path, plan: Plan) -> list[Path]:
        voxels = int(np.prod(self.wanted["patch_shape_zyx"]))
        patch_bytes = voxels * (2 * len(self.wanted["channels"]) + 1)
        step, count = max(1, SHARD_BYTES // patch_bytes), self.wanted["patches"]
        ranges = [range(first, min(first + step, count)) for first in range(0, count, step)]
        paths = [folder / f"{numbers.start:08d}.h5" for numbers in ranges]
        with ThreadPoolExecutor(self.threads) as pool:
            for _ in progress(
                self._encode_missing(pool, paths, ranges, plan),
                total=count,
                what=f"{self.role} patches",
                unit="patches",
            ):
                pass
        return paths

    def _encode_missing(
        self, pool: ThreadPoolExecutor, paths: Sequence[Path], ranges: Sequence[range], plan: Plan
    ) -> Iterator[int]:
        """Yield the number of each patch once it is encoded or found in a shard."""
        for path, numbers in zip(paths, ranges, strict=True):
            if shard_is_complete(path, len(numbers)):
                yield from numbers
                continue
            patches: list[EncodedPatch] = []
            encoded = pool.map(lambda number: self._encode(plan, number), numbers)
            for number, patch in zip(numbers, encoded, strict=True):
                patches.append(patch)
                yield number
            case, start_zyx = (array[numbers.start : numbers.stop] for array in (plan.case, plan.start_zyx))
            write_shard(path, patches, case, start_zyx, self.wanted["patch_shape_zyx"])

    def _encode(self, plan: Plan, number: int) -> EncodedPatch:
        volume = self.volumes[plan.case[number]]
        start, shape = plan.start_zyx[number : number + 1], self.wanted["patch_shape_zyx"]
        image = np.stack(
            [
                voxelcore.extract_patches(channel, start, shape, pad="edge", threads=1)[0]
                for channel in volume.image()
            ]
        )
        label = voxelcore.extract_patches(volume.label(), start, shape, pad="edge", threads=1)[0]
        return encode_patch(image, label, len(self.wanted["labels"]))

    def _meta(self, plan: Plan, statistics: Statistics) -> PatchMeta:
        found: dict[str, Any] = {
            "quota_natural": tuple(tally.natural for tally in plan.tallies),
            "quota_held": tuple(tally.held for tally in plan.tallies),
            "version": importlib.metadata.version("decathlon-unet"),
        }
        if self.role == "training":
            if min(statistics.std) == 0:
                raise InputError(
                    f"the training patches are all of one value, {statistics.mean[0]:g}: "
                    f"window_hu {self.wanted['window_hu']} lies outside the images"
                )
            mean, std = statistics.mean, statistics.std
            if self.wanted["normalisation"] != "window":  # each scan was brought to them by itself
                mean, std = (0.0,) * len(mean), (float(STEPS),) * len(std)
            found |= {
                "mean": mean,
                "std": std,
                "class_voxels": tuple(statistics.counts.tolist()),
            }
        return PatchMeta(**{**self.wanted, **found})
