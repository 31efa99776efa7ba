"""The ingredients of `best-cpu`, each left out or changed by itself: what `run` and `score` make an ablation of.

All start from that preset with the network of budgets/ablation.toml, which is small, so that many can be trained; what
a variant changes is all that differs. They are compared on validation cases alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.accuracy.ours import Preset
from trainer.presets import read_preset
from trainer.settings import TrainSettings

BASE = "best-all"
SEEDS = (BASE, "best-seed-1")
OWN = read_preset("best-cpu").train["augment"]
LONG = TrainSettings.read(read_preset("best").train, "best").as_dict()  # with a preset's defaults
# What `best-cpu` had at first; on scans of other scanners it may be worth more than on phantoms, which all look alike.
LIGHT_AUGMENTATION = {
    "rotate_share": 0.2,
    "rotate_deg_zyx": [15.0, 15.0, 15.0],
    "scale_share": 0.2,
    "scale": [0.85, 1.2],
    "noise_share": 0.1,
    "blur_share": 0.15,
    "brightness_share": 0.15,
    "contrast_share": 0.15,
    "gamma_share": 0.2,
}
# Mirrors, bending and low resolution, too, and larger turns and scales: what the preset for long trainings has.
ALL_AUGMENTATION = {**LONG["augment"], **OWN}


@dataclass(frozen=True)
class Variant:
    """What differs from the preset.

    Attributes:
        what: in words, for the table.
        changes: to its [train] table.
        patch_shape_zyx: another patch than the budget's.
        mirror: axes along which predictions are mirrored.
        bundles_of: the variants whose weights are used, where only the prediction differs.

    """

    what: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    patch_shape_zyx: tuple[int, int, int] | None = None
    mirror: str = ""
    bundles_of: tuple[str, ...] = ()

    def system(self) -> Preset:
        return Preset("best", self.mirror, self.changes, self.patch_shape_zyx, self.bundles_of)


VARIANTS: Mapping[str, Variant] = {
    BASE: Variant("`best-cpu` with 8 filters, otherwise as it is"),
    "best-no-implants": Variant(
        "no lesions of other cases put into the organ", {"augment": {"implant_share": 0.0}}
    ),
    "best-varied-implants": Variant(
        "implants with 0.6 to 1.2 of their contrast, a fifth of them bright instead of dark",
        {"augment": {"implant_contrast": [0.6, 1.2], "implant_inverted_share": 0.2}},
    ),
    "best-light-augmentation": Variant(
        "turned, scaled and shaded a little, too", {"augment": LIGHT_AUGMENTATION}
    ),
    "best-all-augmentation": Variant(
        "mirrors, bending and low resolution, too, turned and scaled more than that",
        {"augment": ALL_AUGMENTATION},
    ),
    "best-top-k": Variant(
        "Dice + top-k cross entropy, as the preset for long trainings",
        {"loss": LONG["loss"], "top_k_share": LONG["top_k_share"]},
    ),
    "best-dice-of-patch": Variant(
        "Dice of each patch and label: small tumours count as much as large ones", {"dice_of": "patch"}
    ),
    "best-one-scale": Variant("no deep supervision", {"deep_supervision": False}),
    "best-no-ema": Variant("the weights themselves, no moving average", {"ema": None}),
    "best-organ-sampling": Variant("patches by organ alone, not by tumour", {"label_shares": [0.0, 0.7]}),
    "best-tumour-sampling": Variant(
        "patches by tumour alone, not by organ", {"label_shares": [0.0, 0.0, 0.7]}
    ),
    "best-residual-encoder": Variant(
        "1, 2, 2 and 3 residual blocks a level in place of one", {"context_blocks": [1, 2, 2, 3]}
    ),
    "best-large-patch": Variant("160 x 200 mm in the plane instead of 120", {}, (32, 64, 80)),
    "best-no-dropout": Variant("no dropout", {"dropout": 0.0}),
    "best-mirrored": Variant(
        "the weights of `best-all-augmentation`, eight mirrored views",
        {},
        None,
        "zyx",
        ("best-all-augmentation",),
    ),
    "best-seed-1": Variant("another seed: what chance alone changes", {"seed": 1}),
    "best-ensemble": Variant(
        f"the weights of `{BASE}` and `best-seed-1`, averaged: twice the steps",
        {},
        None,
        "",
        SEEDS,
    ),
}
