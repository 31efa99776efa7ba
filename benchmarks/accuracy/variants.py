"""The ingredients of the `best` preset, each left out or changed by itself: what `run` and `score` make an ablation of.

All start from `best` with the network of budgets/ablation.toml, which is small, so that many can be trained; what a
variant changes is all that differs. They are compared on validation cases alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.accuracy.ours import Preset

BASE = "best-all"
NO_AUGMENTATION = {
    "mirror_zyx": [0.0, 0.0, 0.0],
    **{
        f"{what}_share": 0.0
        for what in (
            "rotate",
            "scale",
            "elastic",
            "noise",
            "blur",
            "brightness",
            "contrast",
            "gamma",
            "low_resolution",
        )
    },
}


@dataclass(frozen=True)
class Variant:
    """What differs from the preset.

    Attributes:
        what: in words, for the table.
        changes: to its [train] table.
        patch_shape_zyx: another patch than the budget's.
        mirror: axes along which predictions are mirrored.
        bundle_of: the variant whose weights are used, where only the prediction differs.

    """

    what: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    patch_shape_zyx: tuple[int, int, int] | None = None
    mirror: str = ""
    bundle_of: str | None = None

    def system(self) -> Preset:
        return Preset("best", self.mirror, self.changes, self.patch_shape_zyx, self.bundle_of)


VARIANTS: Mapping[str, Variant] = {
    BASE: Variant("all ingredients, one view"),
    "best-no-augmentation": Variant("no augmentation", {"augment": NO_AUGMENTATION}),
    "best-mirrors-only": Variant(
        "mirrored patches as the only augmentation",
        {"augment": {**NO_AUGMENTATION, "mirror_zyx": [0.5, 0.5, 0.5]}},
    ),
    "best-one-scale": Variant("no deep supervision", {"deep_supervision": False}),
    "best-dice-ce": Variant("Dice + cross entropy of all voxels, no top-k", {"loss": "dice_ce"}),
    "best-no-ema": Variant("the weights themselves, no moving average", {"ema": None}),
    "best-organ-sampling": Variant("patches by organ alone, not by tumour", {"label_shares": [0.0, 0.7]}),
    "best-tumour-sampling": Variant("twice as many patches by tumour", {"label_shares": [0.0, 0.15, 0.7]}),
    "best-dice-of-patch": Variant(
        "Dice of each patch and label: small tumours count as much as large ones", {"dice_of": "patch"}
    ),
    "best-plain-encoder": Variant("one residual block a level, as the paper", {"context_blocks": [1]}),
    "best-large-patch": Variant("192 x 160 mm in the plane instead of 120", {}, (32, 64, 80)),
    "best-mirrored": Variant("eight mirrored views at inference", mirror="zyx", bundle_of=BASE),
}
