"""Draw what each augmentation does to prepared patches.

    python tools/augmentations.py WORK/train.h5 OUT.png [PATCH]
    python tools/augmentations.py WORK/train.h5 OUT.png implants

Each transform is applied to the same patch with its customary bounds, at three places in an epoch; the label's outline
moves with the image. Implants are drawn beside the patches that they are put into.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from algorithm.files import replacing
from algorithm.postprocessing import LESION, ORGAN
from trainer.augment import Augmenter, AugmentSettings
from trainer.figures import display_window
from trainer.parts import make_augmenter
from trainer.patches import PatchFile
from trainer.settings import TrainSettings

TRANSFORMS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "mirror": {"mirror_zyx": (0.0, 0.0, 1.0)},
    "rotate": {"rotate_share": 1.0},
    "scale": {"scale_share": 1.0},
    "elastic": {"elastic_share": 1.0},
    "noise": {"noise_share": 1.0},
    "blur": {"blur_share": 1.0},
    "brightness": {"brightness_share": 1.0},
    "contrast": {"contrast_share": 1.0},
    "gamma": {"gamma_share": 1.0},
    "low resolution": {"low_resolution_share": 1.0},
}
DRAWS = 3
PATCHES = 8  # with implants
FEWEST_PIXELS = 12  # of a lesion in the drawn plane


def main(patches: Path, out: Path, what: str = "0") -> None:
    """Draw the picture."""
    file = PatchFile(patches)
    figure = of_implants(file) if what == "implants" else of_transforms(file, int(what))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.93, wspace=0.03, hspace=0.03)
    with replacing(out) as temporary:
        figure.savefig(temporary)


def of_transforms(file: PatchFile, number: int) -> Figure:
    """Return one patch under each transform, three draws each."""
    image, label = normalised(file, [number])
    plane = int((label[0] > 0).sum((1, 2)).argmax())
    figure = Figure(figsize=(1.6 * len(TRANSFORMS), 1.6 * DRAWS + 0.3), dpi=90)
    axes = figure.subplots(DRAWS, len(TRANSFORMS), squeeze=False)
    for column, (name, changes) in enumerate(TRANSFORMS.items()):
        augment = Augmenter(AugmentSettings(**changes), file.meta.spacing_zyx_mm, seed=0)
        axes[0][column].set_title(name, fontsize=9)
        for row in range(DRAWS):
            changed, moved = augment(image, label, np.array([row + 1]), epoch=0)
            draw(axes[row][column], file, changed[0, 0, plane], moved[0, plane])
    return figure


def of_implants(file: PatchFile) -> Figure:
    """Return patches with no lesion in the drawn plane, and the same with one that was put there."""
    figure = Figure(figsize=(1.6 * PATCHES, 3.5), dpi=90)
    axes = figure.subplots(2, PATCHES, squeeze=False)
    settings = TrainSettings(augment=AugmentSettings(implant_share=1.0))
    augment, column = make_augmenter(settings, file, torch.device("cpu")), 0
    for number in range(len(file)):
        image, label = normalised(file, [number])
        changed, moved = augment(image, label, np.array([number]), epoch=0)
        added = ((moved == LESION) & (label != LESION))[0].sum((1, 2))
        added[(label[0] == LESION).any(2).any(1)] = 0
        if int(added.max()) < FEWEST_PIXELS:
            continue
        plane = int(added.argmax())
        draw(axes[0][column], file, image[0, 0, plane], label[0, plane])
        draw(axes[1][column], file, changed[0, 0, plane], moved[0, plane])
        column += 1
        if column == PATCHES:
            break
    for place in axes[:, column:].flat:
        place.set_axis_off()
    axes[0][0].set_title("as they are; below, with implants", fontsize=9, loc="left")
    return figure


def normalised(file: PatchFile, numbers: list[int]) -> tuple[Tensor, Tensor]:
    """Return some patches (n, c, z, y, x) as the network gets them, and their labels."""
    images, labels = file.read(numbers)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (file.meta.mean, file.meta.std))
    return (torch.from_numpy(images).float() - mean) / std, torch.from_numpy(labels)


def draw(place: Axes, file: PatchFile, image: Tensor, label: Tensor) -> None:
    """Draw a plane of the first channel with the outlines of its labels."""
    meta = file.meta
    low, high = display_window(meta.normalisation, meta.window_hu)
    place.imshow((image * meta.std[0] + meta.mean[0]).numpy(), cmap="gray", vmin=low, vmax=high)
    for value, colour in ((ORGAN, "#56B4E9"), (LESION, "#E69F00")):
        if bool((label == value).any()):
            place.contour((label == value).numpy(), [0.5], colors=colour, linewidths=0.9)
    place.set_axis_off()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:4])
