"""The settings of a training, typed, checked, and read from a preset's [train] table."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from algorithm.errors import InputError
from algorithm.network import DEEPEST, DEPTH, MOST_BLOCKS
from trainer.augment import AugmentSettings

MOST_EPOCHS = 10**6


@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained; the defaults are the paper's (sections 4 to 4.2).

    Attributes:
        base_filters: feature maps at full resolution.
        dropout: probability of dropping a feature map in a context block.
        activation: of every layer.
        tie_context_convs: as in the re-implementation that the paper names.
        depth: levels of the network; a patch is halved on each but the first.
        context_blocks: residual blocks of each level on the way down, the last number for all that follow; the
            network of the paper has one.
        loss: "weighted_ce" is equation (1), "topk_ce" its mean over the voxels with the largest losses (section
            4.2.2); "dice_ce" and "dice_topk" add the soft Dice loss to either.
        dice_of: what a soft Dice loss is taken of: the whole batch, or each patch and label that it holds, so that
            small lesions count as much as large ones.
        top_k_share: of all voxels, for the top-k losses.
        deep_supervision: the loss is taken at every scale of the network, each with half the weight of the next
            finer one.
        class_weights: a number for each label, "equal", or "inverse" for inverse class frequency.
        optimiser: "adam" as in the paper, or "adamw".
        learning_rate: at the start.
        weight_decay: decoupled with "adamw", L2 with "adam".
        schedule: "exponential" multiplies by `decay` after each epoch; "cosine" and "polynomial" (power 0.9, that
            of nnU-Net) warm up and fall to zero.
        decay: of the exponential schedule.
        warm_up: share of all steps over which "cosine" and "polynomial" rise.
        gradient_norm: gradients are scaled down to it; null leaves them alone.
        ema: the weights that are validated and kept are an exponential moving average with this factor a step, as
            in 0.999; null for the weights themselves.
        source: of training patches: "patches" reads those of train.h5, as in the paper; "volumes" draws new ones
            each epoch from WORK/volumes; "device" does so from volumes that lie on the training device.
        label_shares: with "volumes" and "device", for each label the share of patches that hold it.
        epoch_patches: patches of an epoch, with "patches" the first so many of train.h5; null for as many as it has.
        val_patches: validate on the first so many patches of val.h5 only, which are in random order; null for all.
        batch_size: patches a batch.
        accumulate: batches whose gradients make one step.
        epochs: passes over the training patches.
        volume_epochs: after every so many epochs, and the last, whole validation volumes are segmented by sliding
            window, and the best of these epochs is kept; null scores patches only.
        patience: training ends when so many epochs brought no better validation; null for none.
        most_skipped: batches of an epoch whose loss may be not finite; they are left out, and one more ends the
            training.
        precision: of the convolutions; "auto" takes bfloat16 where it is fast and agrees with float32. "float16"
            scales the loss.
        compile: let torch.compile make the training step; it takes minutes to start. Measured in docs/BENCHMARKS.md.
        blend: how the bundle stitches patches.
        overlap_zyx: least overlap of neighbouring patches at inference, as a share of the patch; with half of
            it, blend "centre" keeps the centre of each patch (section 3.3).
        augment: how training patches are changed; see `AugmentSettings`. Nothing by default.
        seed: of weights, dropout, augmentation and the order of patches.
        checkpoint_minutes: an unfinished epoch is saved this often.
        keep_checkpoints: how many of the newest epochs stay in RUN/checkpoints.

    """

    base_filters: int = 8
    dropout: float = 0.6
    activation: Literal["leaky_relu", "relu"] = "leaky_relu"
    tie_context_convs: bool = False
    depth: int = DEPTH
    context_blocks: tuple[int, ...] = (1,)
    loss: Literal["weighted_ce", "topk_ce", "dice_ce", "dice_topk"] = "weighted_ce"
    dice_of: Literal["batch", "patch"] = "batch"
    top_k_share: float = 0.05
    deep_supervision: bool = False
    class_weights: tuple[float, ...] | Literal["equal", "inverse"] = (1.0, 10.0, 50.0)
    optimiser: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 0.001
    weight_decay: float = 0.0
    schedule: Literal["exponential", "cosine", "polynomial"] = "exponential"
    decay: float = 0.985
    warm_up: float = 0.05
    gradient_norm: float | None = None
    ema: float | None = None
    source: Literal["patches", "volumes", "device"] = "patches"
    label_shares: tuple[float, ...] = (0.0, 0.3)
    epoch_patches: int | None = None
    val_patches: int | None = None
    batch_size: int = 2
    accumulate: int = 1
    epochs: int = 22
    volume_epochs: int | None = None
    patience: int | None = None
    most_skipped: int = 10
    precision: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    compile: bool = False
    blend: Literal["centre", "gaussian"] = "centre"
    overlap_zyx: tuple[float, float, float] = (0.5, 0.5, 0.5)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    seed: int = 0
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 3

    @classmethod
    def read(cls, table: Mapping[str, Any], source: str) -> TrainSettings:
        """Check a [train] table; `source` is named in messages.

        Raises:
            InputError: an unknown setting (the nearest known one is named), or a value of the wrong type or range.

        """
        settings = read_table(cls, table, source)
        settings.check(source)
        return settings

    def check(self, source: str) -> None:
        """Raise InputError where a value is out of range."""
        ranges: dict[str, tuple[bool, str]] = {
            "base_filters": (1 <= self.base_filters <= 512, "from 1 to 512"),
            "dropout": (0 <= self.dropout < 1, "in [0, 1)"),
            "depth": (2 <= self.depth <= DEEPEST, f"from 2 to {DEEPEST}"),
            "context_blocks": (
                len(self.context_blocks) <= self.depth
                and all(1 <= blocks <= MOST_BLOCKS for blocks in self.context_blocks),
                f"1 to {self.depth} numbers from 1 to {MOST_BLOCKS}, a level each",
            ),
            "dice_of": (
                self.dice_of == "batch" or self.loss.startswith("dice"),
                'batch with a loss without Dice, such as "weighted_ce"',
            ),
            "learning_rate": (0 < self.learning_rate <= 1, "in (0, 1]"),
            "weight_decay": (0 <= self.weight_decay <= 1, "in [0, 1]"),
            "top_k_share": (0 < self.top_k_share <= 1, "in (0, 1]"),
            "ema": (self.ema is None or 0 < self.ema < 1, "in (0, 1) or null"),
            "accumulate": (1 <= self.accumulate <= 4096, "from 1 to 4096"),
            "label_shares": (
                all(share >= 0 for share in self.label_shares) and sum(self.label_shares) <= 1,
                "shares from 0 on whose sum is at most 1",
            ),
            "epoch_patches": (self.epoch_patches is None or self.epoch_patches >= 1, ">= 1 or null"),
            "val_patches": (self.val_patches is None or self.val_patches >= 1, ">= 1 or null"),
            "volume_epochs": (self.volume_epochs is None or self.volume_epochs >= 1, ">= 1 or null"),
            "patience": (self.patience is None or self.patience >= 1, ">= 1 or null"),
            "most_skipped": (self.most_skipped >= 0, ">= 0"),
            "decay": (0 < self.decay <= 1, "in (0, 1]"),
            "warm_up": (0 <= self.warm_up < 1, "in [0, 1)"),
            "gradient_norm": (self.gradient_norm is None or 0 < self.gradient_norm < math.inf, "> 0 or null"),
            "batch_size": (1 <= self.batch_size <= 4096, "from 1 to 4096"),
            "epochs": (1 <= self.epochs <= MOST_EPOCHS, "from 1 to 10^6"),
            "overlap_zyx": (all(0 <= share < 1 for share in self.overlap_zyx), "shares in [0, 1)"),
            "class_weights": (
                isinstance(self.class_weights, str)
                or (min(self.class_weights) >= 0 and 0 < sum(self.class_weights) < math.inf),
                "non-negative, finite and not all zero",
            ),
            "seed": (0 <= self.seed < 2**63, "from 0 to 2^63 - 1"),
            "checkpoint_minutes": (0 < self.checkpoint_minutes < math.inf, "> 0"),
            "keep_checkpoints": (self.keep_checkpoints >= 1, ">= 1"),
        }
        for name, (right, what) in ranges.items():
            if not right:
                raise InputError(f"{source}: '{name}' must be {what}, got {json.dumps(getattr(self, name))}")
        for name, what in self.augment.faults():
            value = json.dumps(getattr(self.augment, name))
            raise InputError(f"{source}: 'augment.{name}' must be {what}, got {value}")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `read` takes them back."""
        return asdict(self)


Settings = TypeVar("Settings")


def read_table(kind: type[Settings], table: Mapping[str, Any], source: str, within: str = "") -> Settings:
    """Return settings of a dataclass, with its defaults for what the table leaves out; a table in it likewise.

    Raises:
        InputError: an unknown setting (the nearest known one is named), or a value of the wrong type.

    """
    hints = get_type_hints(kind)
    values = {}
    for name, value in table.items():
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1)
            remedy = (
                f"did you mean '{within}{near[0]}'?"
                if near
                else f"known settings are {', '.join(within + known for known in sorted(hints))}"
            )
            raise InputError(f"{source}: unknown setting '{within}{name}'; {remedy}")
        hint = hints[name]
        if isinstance(hint, type) and is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise InputError(f"{source}: '{within}{name}' must be a table, got {json.dumps(value)}")
            values[name] = read_table(hint, value, source, f"{within}{name}.")
        else:
            values[name] = _convert(value, hint, within + name, source)
    return kind(**values)


def read_assignments(words: list[str]) -> dict[str, Any]:
    """Parse `name=value` words of a command line; values are JSON, or a bare word for a string.

    `table.name=value` is a setting within a table.
    """
    table: dict[str, Any] = {}
    for word in words:
        name, separator, text = word.partition("=")
        if not separator:
            raise InputError(f"--set takes NAME=VALUE, got '{word}'")
        *within, name = name.split(".")
        place = table
        for part in within:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise InputError(
                    f"--set gives '{part}' a value and, in '{word}', a setting within it; drop one"
                )
        try:
            place[name] = json.loads(text)
        except json.JSONDecodeError:
            place[name] = text
    return table


def merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table with changes made to it, also within the tables that it holds."""
    result = dict(table)
    for name, value in changes.items():
        inner = result.get(name)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            result[name] = merged(inner, value)
        else:
            result[name] = value
    return result


def learning_rate(settings: TrainSettings, epoch: int, step: int, steps: int) -> float:
    """Return the learning rate of one step; epochs and steps count from 0, `steps` is of one epoch."""
    # 1. The paper's: one rate an epoch, each `decay` times the last.
    if settings.schedule == "exponential":
        return settings.learning_rate * settings.decay**epoch
    done = (epoch * steps + step) / (settings.epochs * steps)
    # 2. The others, first part: rise linearly, from above zero.
    if done < settings.warm_up:
        risen = (done + 1 / (settings.epochs * steps)) / settings.warm_up
        return settings.learning_rate * min(1.0, risen)
    # 3. Second part: fall to zero at the last step.
    fallen = (done - settings.warm_up) / (1 - settings.warm_up)
    share = (
        (1 - fallen) ** 0.9 if settings.schedule == "polynomial" else 0.5 * (1 + math.cos(math.pi * fallen))
    )
    return settings.learning_rate * share


def _convert(value: Any, hint: Any, name: str, source: str) -> Any:
    for option in _options(hint):
        converted = _match(value, option)
        if converted is not _NO_MATCH:
            return converted
    raise InputError(f"{source}: '{name}' must be {_say(hint)}, got {json.dumps(value)}")


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


_NO_MATCH = object()


def _match(value: Any, hint: Any) -> Any:
    if get_origin(hint) is Literal:
        return value if value in get_args(hint) else _NO_MATCH
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if not isinstance(value, list | tuple) or not value:
            return _NO_MATCH
        if kinds[-1] is not Ellipsis and len(value) != len(kinds):
            return _NO_MATCH
        items = tuple(_match(item, kinds[0]) for item in value)
        return _NO_MATCH if any(item is _NO_MATCH for item in items) else items
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, bool):
        return _NO_MATCH
    return value if isinstance(value, hint) else _NO_MATCH


def _say(hint: Any) -> str:
    if len(_options(hint)) > 1:
        return " or ".join(_say(option) for option in _options(hint))
    if get_origin(hint) is Literal:
        return " or ".join(json.dumps(option) for option in get_args(hint))
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        return "a list of numbers" if kinds[-1] is Ellipsis else f"a list of {len(kinds)} numbers"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}.get(hint, "null")
