"""MONAI's DynUNet with Dice + cross entropy, as its tutorial for the Decathlon trains it.

Network, crops, augmentation, loss, optimiser, schedule and mirrored inference are those of MONAI's dynunet_pipeline for
task 07; its tables of windows by task are taken from the training cases instead, in the same way (percentiles 0.5 and
99.5, mean and deviation of the foreground), and `Spacingd` resamples in the place of its own cubic code.
"""

from __future__ import annotations

import copy
import json
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from algorithm.files import replacing
from algorithm.images import read_hounsfield, read_labels
from benchmarks.accuracy.task import (
    LABELS,
    Budget,
    Task,
    Trained,
    digest_of,
    keep_prediction,
    missing,
    parameters_of,
    threads,
)
from trainer.dataset import Case, Dataset
from trainer.split import read_split

CHECKPOINT, INTENSITIES = "checkpoint.pt", "intensities.json"
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, POWER = 0.01, 0.99, 3e-5, 0.9
SMALLEST_EDGE = 4  # voxels that an axis keeps at the bottom of the network
SUPERVISED = 3  # scales below the full one whose outputs have a loss
FOREGROUND, BACKGROUND = 1, 1  # crops around a voxel of either, in this proportion
BATCH_DICE = False  # of each patch, not of all of a step
MIRRORS = tuple(axes for count in range(4) for axes in combinations((2, 3, 4), count))  # of (n, c, x, y, z)


class DynUNet:
    """MONAI's re-implementation of nnU-Net's network and training."""

    def digest(self, budget: Budget, steps: int) -> str:
        return digest_of(
            [
                *(
                    LEARNING_RATE,
                    MOMENTUM,
                    WEIGHT_DECAY,
                    POWER,
                    SUPERVISED,
                    FOREGROUND,
                    BACKGROUND,
                    BATCH_DICE,
                ),
                *(MIRRORS, budget.spacing_zyx_mm, budget.patch_shape_zyx, budget.batch_size, steps),
            ]
        )

    def train(self, task: Task) -> Trained:
        warnings.simplefilter("ignore")  # what MONAI says of its own
        torch.set_num_threads(threads())
        task.work.mkdir(parents=True, exist_ok=True)
        began, budget, device = time.monotonic(), task.budget, torch.device(task.device)
        cases = Dataset.read(task.data).training
        split = read_split(task.split, [case.name for case in cases])
        training = [case for case in cases if case.name in split.training]
        intensities = measure(training, task.work / INTENSITIES)
        batches = Batches(
            training, budget, intensities, seed=task.seed, workers=1 if device.type == "cpu" else threads()
        )
        prepare_seconds = time.monotonic() - began
        torch.manual_seed(task.seed)
        torch.backends.cudnn.benchmark = True  # all batches have one shape
        network = make_network(budget).to(device)
        optimiser = torch.optim.SGD(
            network.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
        )
        scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
        loss_of = make_loss()
        done, seconds = 0, 0.0
        checkpoint = task.work / CHECKPOINT
        if checkpoint.is_file():
            state = torch.load(checkpoint, map_location=device, weights_only=True)
            network.load_state_dict(state["network"])
            optimiser.load_state_dict(state["optimiser"])
            scaler.load_state_dict(state["scaler"])
            done, seconds = state["steps"], state["seconds"]
        network.train()
        while done < task.steps:
            began = time.monotonic()
            last = min(done + budget.epoch_steps, task.steps)
            for step, (images, labels) in enumerate(batches.between(done, last), start=done):
                for group in optimiser.param_groups:
                    group["lr"] = LEARNING_RATE * (1 - step / task.steps) ** POWER
                optimiser.zero_grad(set_to_none=True)
                with torch.autocast(device.type, enabled=device.type == "cuda"):
                    scales = network(images.to(device))
                    loss = loss_of(scales, labels.to(device))
                scaler.scale(loss).backward()
                scaler.unscale_(optimiser)
                nn.utils.clip_grad_norm_(network.parameters(), 12)
                scaler.step(optimiser)
                scaler.update()
            done, seconds = last, seconds + time.monotonic() - began
            state = {
                "network": network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "scaler": scaler.state_dict(),
                "steps": done,
                "seconds": seconds,
            }
            with replacing(checkpoint) as temporary:
                torch.save(state, temporary)
        return Trained(
            steps=done,
            batch_size=budget.batch_size,
            seconds=seconds,
            prepare_seconds=prepare_seconds,
            parameters=parameters_of(network),
            about=f"DynUNet, patches {list(budget.patch_shape_zyx)}, batches of {budget.batch_size}, "
            f"features {network.filters}",
        )

    def predict(self, task: Task, images: Path, out: Path) -> None:
        from monai.inferers import sliding_window_inference
        from monai.transforms import Compose, Invertd

        warnings.simplefilter("ignore")
        torch.set_num_threads(threads())
        device = torch.device(task.device)
        network = make_network(task.budget).to(device)
        state = torch.load(task.work / CHECKPOINT, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        network.eval()
        intensities = json.loads((task.work / INTENSITIES).read_text())
        before = Compose(loading(("image",), task.budget, intensities))
        back = Invertd("maps", before, orig_keys="image", nearest_interp=False)
        for path in missing(images, out):
            item = before({"image": str(path)})
            with torch.inference_mode(), torch.autocast(device.type, enabled=device.type == "cuda"):
                maps = mirrored(
                    lambda image: sliding_window_inference(
                        image, task.budget.patch_shape_zyx[::-1], 1, network, overlap=0.5, mode="gaussian"
                    ),
                    item["image"][None].to(device),
                )
            item["maps"] = maps[0].cpu()
            restored = back(item)["maps"].numpy()
            keep_prediction(path, out, np.ascontiguousarray(restored.transpose(0, 3, 2, 1), np.float32))


def mirrored(segment: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """Return the mean probabilities (1, K, x, y, z) of an image (1, 1, x, y, z) and its seven mirror images."""
    total = torch.zeros(())
    for axes in MIRRORS:
        total = total + segment(image.flip(axes)).flip(axes).float().softmax(dim=1).cpu()
    return total / len(MIRRORS)


def measure(cases: Sequence[Case], file: Path) -> dict[str, float]:
    """Return window, mean and deviation of the foreground of the training cases; kept in `file`."""
    if not file.is_file():
        voxels = np.concatenate(
            [read_hounsfield(case.image)[0][read_labels(case.label)[0] > 0] for case in cases]
        ).astype(np.float64)
        low, high = np.percentile(voxels, (0.5, 99.5))
        inside = voxels.clip(low, high)
        found = {"low": low, "high": high, "mean": inside.mean(), "std": inside.std()}
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(found))
    intensities: dict[str, float] = json.loads(file.read_text())
    return intensities


def loading(keys: Sequence[str], budget: Budget, intensities: dict[str, float]) -> list[Any]:
    """Return the transforms that are the same every time."""
    from monai.transforms import (
        EnsureChannelFirstd,
        LoadImaged,
        Orientationd,
        ScaleIntensityRanged,
        Spacingd,
        SpatialPadd,
    )

    low, high, mean, std = (intensities[name] for name in ("low", "high", "mean", "std"))
    return [
        LoadImaged(keys),
        EnsureChannelFirstd(keys),
        Orientationd(keys, axcodes="RAS", labels=None),
        Spacingd(keys, budget.spacing_zyx_mm[::-1], mode=("bilinear", "nearest")[: len(keys)]),
        ScaleIntensityRanged("image", low, high, (low - mean) / std, (high - mean) / std, clip=True),
        SpatialPadd(keys, budget.patch_shape_zyx[::-1], mode="edge"),
    ]


class Batches:
    """Patches of the training cases, drawn anew for every step; those of a step are the same after a restart.

    The cases are held in memory as the first transforms leave them.
    """

    def __init__(
        self, cases: Sequence[Case], budget: Budget, intensities: dict[str, float], *, seed: int, workers: int
    ) -> None:
        from monai.transforms import (
            Compose,
            FgBgToIndicesd,
            RandCropByPosNegLabeld,
            RandFlipd,
            RandGaussianNoised,
            RandGaussianSmoothd,
            RandScaleIntensityd,
            RandZoomd,
        )

        keys = ("image", "label")
        load = Compose(
            [
                *loading(keys, budget, intensities),
                FgBgToIndicesd("label", image_key="image", image_threshold=0.0),
            ]
        )
        self.items = [load({"image": str(case.image), "label": str(case.label)}) for case in cases]
        self.batch_size, self.seed, self.workers = budget.batch_size, seed, workers
        smooth = (0.5, 1.15)
        self.transforms = Compose(
            [
                RandCropByPosNegLabeld(
                    keys,
                    "label",
                    budget.patch_shape_zyx[::-1],
                    pos=FOREGROUND,
                    neg=BACKGROUND,
                    num_samples=1,
                    fg_indices_key="label_fg_indices",
                    bg_indices_key="label_bg_indices",
                ),
                RandZoomd(
                    keys,
                    prob=0.15,
                    min_zoom=0.9,
                    max_zoom=1.2,
                    mode=("trilinear", "nearest"),
                    align_corners=(True, None),
                ),
                RandGaussianNoised("image", prob=0.15, std=0.01),
                RandGaussianSmoothd("image", prob=0.15, sigma_x=smooth, sigma_y=smooth, sigma_z=smooth),
                RandScaleIntensityd("image", factors=0.3, prob=0.15),
                *(RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)),
            ]
        )
        self.own = threading.local()  # transforms draw from a state of their own, so each thread has its copy

    def between(self, first_step: int, last_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of these steps: images and labels (n, 1, x, y, z)."""
        if self.workers < 2:
            yield from map(self.batch, range(first_step, last_step))
            return
        with ThreadPoolExecutor(self.workers) as pool:
            ahead: deque[Future[tuple[Tensor, Tensor]]] = deque()
            for step in range(first_step, last_step):
                ahead.append(pool.submit(self.batch, step))
                if len(ahead) > 2 * self.workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch of one step."""
        if not hasattr(self.own, "transforms"):
            self.own.transforms = copy.deepcopy(self.transforms)
        rng = np.random.default_rng((self.seed, step))
        self.own.transforms.set_random_state(int(rng.integers(2**31)))
        chosen = rng.integers(len(self.items), size=self.batch_size)
        drawn = [self.own.transforms(self.items[number])[0] for number in chosen]
        images, labels = (torch.stack([one[key].as_tensor() for one in drawn]) for key in ("image", "label"))
        return images, labels


def make_network(budget: Budget) -> Any:
    """Return the network with as many levels as the patch has room for, as the tutorial counts them."""
    from monai.networks.nets import DynUNet as Network

    kernels, strides = levels(budget.patch_shape_zyx[::-1], budget.spacing_zyx_mm[::-1])
    return Network(
        spatial_dims=3,
        in_channels=1,
        out_channels=len(LABELS),
        kernel_size=kernels,
        strides=strides,
        upsample_kernel_size=strides[1:],
        norm_name="instance",
        deep_supervision=True,
        deep_supr_num=min(SUPERVISED, len(strides) - 2),
    )


def levels(
    patch_shape: Sequence[int], spacing_mm: Sequence[float]
) -> tuple[list[list[int]], list[list[int]]]:
    """Return kernels and strides by level: an axis is halved while its spacing is within twice the finest one's."""
    size, spacing = np.array(patch_shape), np.array(spacing_mm, np.float64)
    kernels, strides = [], [[1, 1, 1]]
    while True:
        ratio = spacing / spacing.min()
        stride = np.where((ratio <= 2) & (size >= 2 * SMALLEST_EDGE) & (size % 2 == 0), 2, 1)
        kernels.append(np.where(ratio <= 2, 3, 1).tolist())
        if (stride == 1).all():
            return kernels, strides
        size, spacing = size // stride, spacing * stride
        strides.append(stride.tolist())


def make_loss() -> Any:
    """Return the loss of the stacked scales (n, s, c, x, y, z): a sum, each with half the weight of the finer one."""
    from monai.losses import DiceCELoss

    loss_of = DiceCELoss(to_onehot_y=True, softmax=True, batch=BATCH_DICE)

    def deep(scales: Tensor, labels: Tensor) -> Tensor:
        parts = torch.unbind(scales.float(), dim=1)
        return torch.stack([0.5**number * loss_of(part, labels) for number, part in enumerate(parts)]).sum()

    return deep
