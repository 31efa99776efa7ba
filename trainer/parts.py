"""What a training is put together from: its source of patches, loss, optimiser, and the description of its bundle."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Callable, Sequence
from importlib import metadata

import numpy as np
import torch
from torch import nn

from algorithm.bundle import Description, Stitching
from algorithm.errors import InputError
from algorithm.network import UNet3D
from algorithm.postprocessing import LESION, ORGAN
from trainer.augment import Augmenter
from trainer.distributed import World
from trainer.history import History
from trainer.implants import Lesion, cut_out
from trainer.losses import (
    DeepSupervision,
    DiceCrossEntropy,
    DiceTopK,
    TopKCrossEntropy,
    WeightedCrossEntropy,
)
from trainer.patches import Batches, PatchFile, PatchMeta
from trainer.settings import TrainSettings
from trainer.volume_batches import DeviceVolumeBatches, Source, VolumeBatches, open_volumes

log = logging.getLogger(__name__)
MOST_LOADER_THREADS = 8


def make_source(settings: TrainSettings, train_file: PatchFile, device: torch.device, world: World) -> Source:
    """Return what training patches come from.

    Raises:
        InputError: volumes are missing, the shares are not as many as the labels, or the patches make no batch.

    """
    meta, threads = train_file.meta, loader_threads(world)
    if settings.source == "patches":
        batches = Batches(
            train_file,
            batch_size=settings.batch_size,
            seed=settings.seed,
            limit=first_patches(train_file, "epoch_patches", settings.epoch_patches),
            part=(world.rank, world.size),
            threads=threads,
            ahead=2 * threads,
        )
        if len(batches) == 0:
            raise InputError(
                f"{train_file.path} has {batches.patches} patches, which make no batch of {settings.batch_size} for "
                f"each of {world.size} processes; lower batch_size, or prepare more with --train-patches"
            )
        return batches
    if len(settings.label_shares) > len(meta.labels):
        raise InputError(
            f"label_shares must have at most a number for each of the {len(meta.labels)} labels "
            f"{', '.join(meta.labels)}, got {list(settings.label_shares)}"
        )
    for label, share in enumerate(settings.label_shares):
        if share > 0 and meta.class_voxels[label] == 0:
            log.warning(
                "label_shares asks for %g of the patches with '%s', but no training patch has it",
                share,
                meta.labels[label],
            )
    volumes = open_volumes(train_file.path.parent, meta.training_cases)
    drawn = VolumeBatches(
        volumes,
        meta.patch_shape_zyx,
        settings.batch_size,
        patches=settings.epoch_patches or meta.patches,
        label_shares=settings.label_shares,
        seed=settings.seed,
        part=(world.rank, world.size),
        threads=threads,
        ahead=2 * threads,
        pinned=device.type == "cuda",
    )
    return drawn if settings.source == "volumes" else DeviceVolumeBatches(drawn, volumes, device)


def first_patches(file: PatchFile, setting: str, count: int | None) -> int | None:
    """Return how many patches of a file are used, None for all.

    Raises:
        InputError: the file has fewer than the setting asks for.

    """
    if count is not None and count > len(file):
        raise InputError(
            f"{setting} = {count} asks for more patches than {file.path} has, {len(file)}; lower it, or prepare more"
        )
    return count


def loader_threads(world: World) -> int:
    """Return how many threads of this process make batches: what they do does not depend on it."""
    return max(2, min(MOST_LOADER_THREADS, (os.cpu_count() or 1) // (2 * world.size)))


def make_augmenter(settings: TrainSettings, train_file: PatchFile, device: torch.device) -> Augmenter:
    """Return what changes training patches.

    Raises:
        InputError: lesions are to be implanted, and there are none, or the volumes that hold them are missing.

    """
    meta, lesions = train_file.meta, tuple[Lesion, ...]()
    if settings.augment.implant_share > 0:
        if len(meta.labels) <= LESION:
            raise InputError(
                f"augment.implant_share puts lesions, label {LESION}, into an organ, label {ORGAN}, but the patches "
                f"have the labels {', '.join(meta.labels)}; set it to 0"
            )
        volumes = open_volumes(
            train_file.path.parent, meta.training_cases, "augment.implant_share", "set that to 0"
        )
        lesions = cut_out(volumes, meta.std, meta.patch_shape_zyx, device)
        if not lesions:
            raise InputError(
                f"augment.implant_share puts lesions into patches, but no training case of {train_file.path.parent} "
                "has one that fits into a patch; set it to 0"
            )
        log.info(
            "%d lesions of '%s' will be put into '%s'", len(lesions), meta.labels[LESION], meta.labels[ORGAN]
        )
    return Augmenter(settings.augment, meta.spacing_zyx_mm, seed=settings.seed, lesions=lesions)


def make_loss(settings: TrainSettings, meta: PatchMeta) -> nn.Module:
    """Return the loss with one weight a label; see `class_weights` for the choices."""
    weights = class_weights(settings, meta)
    of_each_patch = settings.dice_of == "patch"
    losses: dict[str, Callable[[], nn.Module]] = {
        "weighted_ce": lambda: WeightedCrossEntropy(weights),
        "topk_ce": lambda: TopKCrossEntropy(weights, settings.top_k_share),
        "dice_ce": lambda: DiceCrossEntropy(weights, of_each_patch=of_each_patch),
        "dice_topk": lambda: DiceTopK(weights, settings.top_k_share, of_each_patch=of_each_patch),
    }
    loss = losses[settings.loss]()
    return DeepSupervision(loss) if settings.deep_supervision else loss


def class_weights(settings: TrainSettings, meta: PatchMeta) -> tuple[float, ...]:
    """Return one weight a label.

    "inverse" is proportional to the inverse of the class frequency in the training patches, background 1
    (section 4.2.1 of the paper gives [1, 525, 9980] for Task07; all voxels of its 281 cases give [1, 526, 3502]).

    Raises:
        InputError: the number of weights is not that of the labels, or a label never occurs.

    """
    count = len(meta.labels)
    if settings.class_weights == "equal":
        return (1.0,) * count
    if settings.class_weights == "inverse":
        voxels = meta.class_voxels
        if 0 in voxels:
            name = meta.labels[voxels.index(0)]
            raise InputError(
                f"class_weights = \"inverse\" needs every label in the training patches, but '{name}' never occurs"
            )
        return tuple(voxels[0] / number for number in voxels)
    if len(settings.class_weights) != count:
        raise InputError(
            f"class_weights must have a number for each of the {count} labels {', '.join(meta.labels)}, "
            f"got {list(settings.class_weights)}; give --set class_weights=[…]"
        )
    return tuple(float(weight) for weight in settings.class_weights)


def describe_bundle(
    network: UNet3D, settings: TrainSettings, meta: PatchMeta, history: History, *, bfloat16: bool = False
) -> Description:
    """Return all that inference needs beside the weights, and where they come from."""
    patch = meta.patch_shape_zyx
    z, y, x = (int(share * size) for share, size in zip(settings.overlap_zyx, patch, strict=True))
    return Description(
        network=network.arguments,
        labels=meta.labels,
        channels=meta.channels,
        spacing_zyx_mm=meta.spacing_zyx_mm,
        window_hu=meta.window_hu,
        mean=meta.mean,
        std=meta.std,
        patch_shape_zyx=patch,
        stitching=Stitching(settings.blend, (z, y, x)),
        bfloat16=bfloat16,
        normalisation=meta.normalisation,
        provenance={
            "data_set": {"name": meta.dataset_name, "sha256": meta.dataset_hash},
            "held_out": digest_of_cases(meta.validation_cases),
            "settings": settings.as_dict(),
            "epochs_done": len(history.rows),
            "scores": {name: value for name, value in history.last.items() if not math.isnan(value)},
            "versions": versions(),
        },
    )


def digest_of_cases(names: Sequence[str]) -> str:
    """Return a hash of case names, which tells whether two trainings held out the same without naming anybody."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of this software and of what trains."""
    return {
        "decathlon-unet": metadata.version("decathlon-unet"),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def make_optimiser(settings: TrainSettings, network: UNet3D) -> torch.optim.Optimizer:
    """Return Adam (the paper's) or AdamW."""
    kind = torch.optim.Adam if settings.optimiser == "adam" else torch.optim.AdamW
    return kind(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
