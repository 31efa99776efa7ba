"""The training loop, to be read downwards: settings, set-up, epochs, validation, what is kept."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from algorithm.bundle import Bundle, read_bundle, write_bundle
from algorithm.errors import InputError
from algorithm.network import UNet3D, to_channels_last
from algorithm.precision import has_bfloat16
from algorithm.progress import progress
from algorithm.segmenter import Segmenter
from trainer.average import MovingAverage
from trainer.checkpoint import load_newest_checkpoint, save_checkpoint
from trainer.distributed import World, shared
from trainer.history import History, Row
from trainer.parts import (
    describe_bundle,
    first_patches,
    make_augmenter,
    make_loss,
    make_optimiser,
    make_source,
)
from trainer.patches import Batches, PatchFile
from trainer.precision import bfloat16_agrees, choose_precision
from trainer.settings import TrainSettings, learning_rate
from trainer.start import Start
from trainer.tally import Tally
from trainer.volume_batches import Source, open_volumes
from trainer.volume_validation import score_volumes
from trainer.watch import Board, FixedSlices

log = logging.getLogger(__name__)
PATCHES_TO_COMPARE = 4  # in bfloat16 and float32, for the bundle
PICTURES_SHARE = 0.02  # of the time, at most, for pictures and the newest bundle


@dataclass
class Trainer:
    """One training: a network on a device, its optimiser, and the folder that receives what it makes."""

    settings: TrainSettings
    train_file: PatchFile
    val_file: PatchFile
    run: Path
    device: torch.device
    world: World = field(default_factory=World)
    start: Start | None = None  # weights to begin with, where there is no checkpoint
    goes_on: Callable[[Sequence[Row]], bool] | None = None  # asked before every epoch but the first

    def __post_init__(self) -> None:
        meta, settings = self.train_file.meta, self.settings
        torch.manual_seed(settings.seed)
        self.network = UNet3D(
            in_channels=len(meta.channels),
            num_classes=len(meta.labels),
            base_filters=settings.base_filters,
            dropout=settings.dropout,
            activation=settings.activation,
            tie_context_convs=settings.tie_context_convs,
            depth=settings.depth,
            context_blocks=settings.context_blocks,
        ).to(self.device)
        if self.start is not None:
            self.start.load_into(self.network)
        if self.device.type == "cpu" or settings.compile:
            to_channels_last(self.network)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # all batches of a training have one shape
        batch_shape = (settings.batch_size, len(meta.channels), *meta.patch_shape_zyx)
        self.precision = choose_precision(settings.precision, self.network, batch_shape, self.device)
        if self.precision == torch.float32:
            torch.backends.cudnn.allow_tf32 = False  # float32 is to mean float32, on a GPU too
        self.loss = make_loss(settings, meta).to(self.device)
        self.optimiser = make_optimiser(settings, self.network)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        self.average = MovingAverage(self.network, settings.ema) if settings.ema is not None else None
        self.augment = make_augmenter(settings, self.train_file, self.device)
        self.scales = shared(self.network, self.world, self.device)
        if settings.compile:
            self.scales.compile()
        self.batches = make_source(settings, self.train_file, self.device, self.world)
        self.val_batches = Batches(
            self.val_file,
            batch_size=settings.batch_size,
            seed=settings.seed,
            shuffle=False,
            limit=first_patches(self.val_file, "val_patches", settings.val_patches),
        )
        channels = (1, -1, 1, 1, 1)
        self.mean = torch.tensor(meta.mean, device=self.device).view(channels)
        self.std = torch.tensor(meta.std, device=self.device).view(channels)
        self.slices = FixedSlices(self.val_file, patches=settings.val_patches)
        self.history = History(meta.labels)
        self.first_epoch, self.tally = 0, Tally()
        self.gathered = 0.0  # batches whose gradients wait for the next step
        self.pictures_from = 0.0  # when they may be drawn again

    def resume(self) -> bool:
        """Continue from the newest checkpoint of the run; return whether there was one."""
        state = load_newest_checkpoint(self.run / "checkpoints", self.device)
        if state is None:
            return False
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load(state["average"])
        self.history = History.from_rows(self.train_file.meta.labels, state["history"])
        self.first_epoch, self.tally = state["epoch"], Tally(**state["tally"])
        log.info("continuing at epoch %d, batch %d", self.first_epoch + 1, self.tally.batches + 1)
        return True

    def fit(self) -> None:
        """Train to the last epoch or till patience ends, keeping a checkpoint after each, and the best bundle.

        Pictures and the newest bundle follow, but where epochs are so short that these would take more than
        `PICTURES_SHARE` of the time not each epoch's.
        """
        with ExitStack() as stack:
            board = stack.enter_context(Board(self.run, self.first_epoch)) if self.world.is_first else None
            self._fit(board)

    def _fit(self, board: Board | None) -> None:
        keeping_s = 0.0  # what it took to keep the epoch before
        for epoch in range(self.first_epoch, self.settings.epochs):
            if self._is_out_of_patience(epoch):
                log.info(
                    "no better epoch than %d in %d more: done",
                    self.history.best_epoch,
                    self.settings.patience,
                )
                break
            if self._is_given_up():
                log.info("given up after epoch %d", epoch)
                break
            self._train_epoch(epoch)
            with self.average.applied() if self.average is not None else nullcontext():
                began = time.monotonic()
                validation = self.validate(epoch)
                volume_dice = self.validate_volumes(epoch + 1)
                self.history.append(
                    epoch=epoch + 1,
                    train=self.tally.scores(),
                    val=validation.scores(),
                    learning_rate=self.optimiser.param_groups[0]["lr"],
                    seconds=self.tally.spent_s + time.monotonic() - began + keeping_s,
                    waited_share=self.tally.waited_s / self.tally.spent_s,
                    voxels_per_s=self.tally.voxels_per_s(),
                    volume_dice=volume_dice,
                )
                began = time.monotonic()
                if board is not None:
                    self._keep_results(epoch + 1, board)
            self.tally = Tally()
            self._save(epoch + 1)
            keeping_s = time.monotonic() - began
            left_min = (self.settings.epochs - epoch - 1) * self.history.last["seconds"] / 60
            log.info("epoch %d: %s; %.0f min left", epoch + 1, self.history.describe(epoch + 1), left_min)
        if board is not None:
            self._restore_results()
        log.info("best epoch %d: %s", self.history.best_epoch, self.history.describe(self.history.best_epoch))

    def _is_out_of_patience(self, epochs_done: int) -> bool:
        patience = self.settings.patience
        if patience is None or not self.history.is_decided:
            return False
        # Scores of several GPUs may differ in the last digit: all stop together, or none does.
        goes_on = epochs_done - self.history.best_epoch < patience
        return not self.world.agree(self.device, on=goes_on)

    def _is_given_up(self) -> bool:
        if self.goes_on is None or not self.history.rows:
            return False
        return not self.world.agree(self.device, on=self.goes_on(self.history.rows))

    def _train_epoch(self, epoch: int) -> None:
        self.network.train()
        settings = self.settings
        saved = time.monotonic()
        what = f"epoch {epoch + 1} of {settings.epochs}"
        for batch, images, target in self.on_device(epoch, self.tally.batches, self.tally, what):
            made_step = self.train_batch(epoch, batch, images, target)
            if made_step and time.monotonic() - saved > 60 * settings.checkpoint_minutes:
                self._save(epoch)
                saved = time.monotonic()

    def train_batch(self, epoch: int, batch: int, images: Tensor, target: Tensor) -> bool:
        """Learn from normalised images (n, c, z, y, x) and targets (n, z, y, x); return whether that made a step."""
        settings, last = self.settings, len(self.batches) - 1
        if batch % settings.accumulate == 0:
            self.optimiser.zero_grad(set_to_none=True)
            self.gathered = 0.0
        # What is drawn depends on (seed, epoch, batch) alone, so that a resumed run repeats it.
        place = batch * self.world.size + self.world.rank
        torch.manual_seed(step_seed(settings.seed, epoch, place))
        indices = place * settings.batch_size + np.arange(len(images), dtype=np.int64)
        images, target = self.augment(images, target, indices, epoch=epoch)
        scales = self._forward(images)
        loss = self.loss(scales if settings.deep_supervision else scales[0], target)
        self.tally.batches += 1
        if self.world.agree(self.device, on=bool(loss.isfinite())):
            share = len(images) / settings.batch_size  # the last batch of an epoch may hold fewer
            self.scaler.scale(loss * share).backward()
            self.gathered += share
            self._count(self.tally, loss, scales[0], target, self.world)
        else:
            self._skip("loss", epoch, batch)
        if batch % settings.accumulate < settings.accumulate - 1 and batch < last:
            return False
        self._step(epoch, batch)
        return True

    def _step(self, epoch: int, batch: int) -> None:
        """Change the weights by the gradients of one batch, or of as many as are accumulated, `batch` the last."""
        accumulate = self.settings.accumulate
        steps = -(-len(self.batches) // accumulate)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.settings, epoch, batch // accumulate, steps)
        if self.gathered == 0:
            return  # every batch of the step was skipped
        self.scaler.unscale_(self.optimiser)
        weights = list(self.network.parameters())
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        for gradient in gradients:
            gradient.div_(self.gathered)
        norm = nn.utils.get_total_norm(gradients)
        if not bool(norm.isfinite()):
            scale = self.scaler.get_scale()  # 1 without float16
            self.scaler.update()
            if scale > 1:  # float16 overflowed, as it does until the scaler has found its scale
                log.warning(
                    "the gradient overflows in epoch %d, batch %d at a loss scaled by %g: the next is scaled by %g",
                    *(epoch + 1, batch + 1, scale, self.scaler.get_scale()),
                )
            else:
                self._skip("gradient", epoch, batch)
            return
        if self.settings.gradient_norm is not None:
            nn.utils.clip_grads_with_norm_(weights, self.settings.gradient_norm, norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update()

    def _skip(self, what: str, epoch: int, batch: int) -> None:
        """Leave out a batch whose loss or gradient is not finite; too many of them end the training."""
        self.tally.skipped += 1
        log.warning(
            "the %s is not finite in epoch %d, batch %d: the batch is skipped", what, epoch + 1, batch + 1
        )
        is_last = batch == len(self.batches) - 1
        if self.tally.skipped > self.settings.most_skipped or (is_last and not self.tally.losses):
            raise InputError(
                f"the {what} was not finite in {self.tally.skipped} batches of epoch {epoch + 1}, the last of them "
                f"batch {batch + 1}; lower learning_rate, or set gradient_norm or precision=float32, in another --out"
            )

    @torch.no_grad()
    def validate(self, epoch: int, most: int | None = None) -> Tally:
        """Return the scores of the validation patches, or of the first so many batches of them."""
        self.network.eval()
        tally = Tally()
        what = f"validation {epoch + 1}"
        for batch, images, target in self.on_device(0, 0, tally, what, self.val_batches):
            scales = self._forward(images)
            loss = self.loss(scales if self.settings.deep_supervision else scales[0], target)
            self._count(tally, loss, scales[0], target)
            self.slices.see(batch * self.settings.batch_size, scales[0])
            tally.batches += 1
            if tally.batches == most:
                break
        return tally

    def validate_volumes(self, epochs_done: int, most: int | None = None) -> tuple[float, ...] | None:
        """Return the Dice of whole volumes, or of the first so many, by label.

        NaN where it is not their turn; None if they have none.
        """
        every, meta = self.settings.volume_epochs, self.train_file.meta
        if every is None:
            return None
        if epochs_done % every and epochs_done < self.settings.epochs:
            return (float("nan"),) * len(meta.labels)
        description = describe_bundle(self.network, self.settings, meta, self.history)
        segmenter = Segmenter(
            # A copy: layers that are wrong in bfloat16 are changed in place.
            Bundle(copy.deepcopy(self.network), description),
            device=self.device,
            precision="bfloat16" if self.precision == torch.bfloat16 else "auto",
            engine="torch",
        )
        return score_volumes(
            segmenter, open_volumes(self.train_file.path.parent, meta.validation_cases[:most])
        )

    def on_device(
        self, epoch: int, first: int, tally: Tally, what: str, batches: Source | None = None
    ) -> Iterable[tuple[int, Tensor, Tensor]]:
        """Yield (step, normalised images, targets) from batch `first` on, and time both waiting and work."""
        batches = self.batches if batches is None else batches
        began = time.monotonic()
        shown = progress(
            enumerate(tally.waiting_for(batches.batches(epoch, first_batch=first)), start=first),
            total=len(batches) - first,
            what=what,
            unit="batches",
            status=lambda: tally.describe(self.history.labels),
        )
        for step, (images, labels) in shown:
            on_device = torch.as_tensor(images).to(self.device, non_blocking=True).float()
            target = torch.as_tensor(labels).to(self.device, non_blocking=True).long()
            yield step, (on_device - self.mean) / self.std, target
            now = time.monotonic()
            tally.spent_s += now - began
            began = now

    def _first_validation_images(self) -> Tensor:
        some = range(min(PATCHES_TO_COMPARE, len(self.val_file)))
        images = torch.from_numpy(self.val_file.read(some)[0]).to(self.device).float()
        return (images - self.mean) / self.std

    def _forward(self, images: Tensor) -> list[Tensor]:
        """Return the logits of every scale, the full one first."""
        with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision != torch.float32):
            scales: list[Tensor] = (self.scales if self.network.training else self.network.scales)(images)
        return [logits.float() for logits in scales]

    def _count(
        self, tally: Tally, loss: Tensor, logits: Tensor, target: Tensor, world: World | None = None
    ) -> None:
        world = World() if world is None else world  # every process validates all by itself
        classes = logits.shape[1]
        pairs = target * classes + logits.argmax(dim=1)
        confusion = torch.bincount(pairs.flatten(), minlength=classes * classes)
        tally.losses.append(world.sum(loss.detach()) / world.size)
        tally.confusions.append(world.sum(confusion.view(classes, classes)))

    def _save(self, epoch: int) -> None:
        if not self.world.is_first:
            return
        state = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state() if self.average is not None else None,
            "history": self.history.rows,
            "epoch": epoch,
            "tally": self.tally.state(),
        }
        folder, batches = self.run / "checkpoints", self.tally.batches
        save_checkpoint(folder, state, epochs=epoch, batches=batches, keep=self.settings.keep_checkpoints)

    def _keep_results(self, epochs_done: int, board: Board) -> None:
        self.history.write(self.run)
        board.add(self.history)
        is_best, now = self.history.best_epoch == epochs_done, time.monotonic()
        is_due = now >= self.pictures_from or epochs_done == self.settings.epochs
        if not is_best and not is_due:
            return
        bundle = self._bundle()
        if is_best:  # no checkpoint has these weights once the next epoch has begun
            write_bundle(self.run / "bundle", bundle)
        if is_due:
            self.history.draw(self.run)
            self.slices.draw(self.run / "overlay.png")
            board.add_picture(epochs_done, self.run / "overlay.png")
            write_bundle(self.run / "bundle-last", bundle)
            ended = time.monotonic()
            self.pictures_from = ended + (ended - now) / PICTURES_SHARE

    def _bundle(self) -> Bundle:
        same = has_bfloat16(self.device) and bfloat16_agrees(
            self.network.eval(), self._first_validation_images()
        )
        meta = self.train_file.meta
        description = describe_bundle(self.network, self.settings, meta, self.history, bfloat16=same)
        if self.start is not None:
            description.provenance["initial_weights"] = self.start.sha256
        return Bundle(self.network, description)

    def _restore_results(self) -> None:
        """Make what a training that has ended lacks, or has of an earlier epoch, as far as its last state tells."""
        if not (self.run / "metrics.csv").is_file():
            self.history.write(self.run)
        done = len(self.history.rows)
        lacks_last = _epochs_done(self.run / "bundle-last") != done
        if lacks_last or not (self.run / "curves.png").is_file():
            self.history.draw(self.run)
        if lacks_last and self.slices.are_seen:
            self.slices.draw(self.run / "overlay.png")
        lacks_best = not (self.run / "bundle").is_dir()
        if lacks_best and self.history.best_epoch != done:
            log.warning(
                "%s is gone, and only a new training makes the weights of epoch %d again",
                self.run / "bundle",
                self.history.best_epoch,
            )
            lacks_best = False
        with self.average.applied() if self.average is not None else nullcontext():
            for name, is_lacking in (("bundle", lacks_best), ("bundle-last", lacks_last)):
                if is_lacking:
                    write_bundle(self.run / name, self._bundle())


def _epochs_done(bundle: Path) -> int | None:
    """Return the epochs after which a bundle of this software was written; None where there is no readable one."""
    try:
        return int(read_bundle(bundle).description.provenance["epochs_done"])
    except (InputError, KeyError, TypeError, ValueError):
        return None


def step_seed(seed: int, epoch: int, step: int) -> int:
    """Return a 64-bit seed that depends on nothing but its arguments."""
    return int(np.random.SeedSequence((seed, epoch, step)).generate_state(1, np.uint64)[0])
