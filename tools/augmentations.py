"""Draw what each augmentation does to one prepared patch.

    python tools/augmentations.py WORK/train.h5 OUT.png [PATCH]

Each transform is applied to the same patch with its customary bounds, at three places in an epoch; the label's outline
moves with the image.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from algorithm.files import replacing
from trainer.augment import Augmenter, AugmentSettings
from trainer.figures import display_window
from trainer.patches import PatchFile

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


def main(patches: Path, out: Path, number: int = 0) -> None:
    """Draw the picture."""
    file = PatchFile(patches)
    meta = file.meta
    images, labels = file.read([number])
    mean, std = meta.mean[0], meta.std[0]
    image = (torch.from_numpy(images[:, :1]).float() - mean) / std
    label = torch.from_numpy(labels)
    plane = int(np.argmax((labels[0] > 0).sum(axis=(1, 2))))
    figure = Figure(figsize=(1.6 * len(TRANSFORMS), 1.6 * DRAWS + 0.3), dpi=90)
    FigureCanvasAgg(figure)
    axes = figure.subplots(DRAWS, len(TRANSFORMS), squeeze=False)
    for column, (name, changes) in enumerate(TRANSFORMS.items()):
        augment = Augmenter(AugmentSettings(**changes), meta.spacing_zyx_mm, seed=0)
        for row in range(DRAWS):
            changed, moved = augment(image, label, np.array([row + 1]), epoch=0)
            place = axes[row][column]
            hounsfield = (changed[0, 0, plane] * std + mean).numpy()
            low, high = display_window(meta.normalisation, meta.window_hu)
            place.imshow(hounsfield, cmap="gray", vmin=low, vmax=high)
            for value, colour in ((1, "#56B4E9"), (2, "#E69F00")):
                if bool((moved[0, plane] == value).any()):
                    place.contour((moved[0, plane] == value).numpy(), [0.5], colors=colour, linewidths=0.9)
            place.set_axis_off()
            if row == 0:
                place.set_title(name, fontsize=9)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.93, wspace=0.03, hspace=0.03)
    with replacing(out) as temporary:
        figure.savefig(temporary)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *(int(word) for word in sys.argv[3:4]))
