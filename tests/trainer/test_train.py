from __future__ import annotations

import csv
import dataclasses
import gc
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import trainer.loop
from algorithm.bundle import Bundle, read_bundle, write_bundle
from algorithm.errors import InputError
from algorithm.geometry import Geometry
from algorithm.lock import alone_in
from algorithm.segmenter import Segmenter
from tests.trainer.conftest import MakeTask
from tests.trainer.runs import arguments, rows, weights
from trainer import checkpoint
from trainer.average import MovingAverage
from trainer.cli import main
from trainer.history import EpochScores, History
from trainer.loop import Trainer, step_seed
from trainer.losses import WeightedCrossEntropy
from trainer.parts import class_weights
from trainer.patches import PatchFile
from trainer.presets import preset_names, read_preset
from trainer.settings import TrainSettings
from trainer.train import choose_device
from trainer.volume_batches import DeviceVolumeBatches, VolumeBatches, open_volumes
from trainer.volume_validation import score_volumes


def test_a_training_leaves_a_bundle_that_segments(work: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(arguments(work, run, epochs=6)) == 0
    losses = [float(row["train_loss"]) for row in rows(run)]
    assert losses[-1] < 0.9 * losses[0]
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3", "4", "5", "6"]
    rates = [float(row["learning_rate"]) for row in rows(run)]
    assert rates == pytest.approx([0.01 * 0.985**epoch for epoch in range(6)])
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((run / "checkpoints").iterdir())) == 3
    bundle = read_bundle(run / "bundle")
    meta = PatchFile(work / "train.h5").meta
    assert bundle.description.mean == meta.mean
    assert bundle.description.labels == ("background", "pancreas", "cancer")
    assert bundle.description.stitching.overlap_zyx == (8, 8, 16)
    assert bundle.description.provenance["settings"]["class_weights"] == [1.0, 10.0, 50.0]
    assert Segmenter(bundle).description.patch_shape_zyx == (16, 16, 32)


def test_a_network_of_another_depth_with_more_blocks_is_trained_and_segments(
    work: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert main(arguments(work, run, epochs=1, depth=3, context_blocks=[1, 2])) == 0
    bundle = read_bundle(run / "bundle")
    assert bundle.description.network["depth"] == 3
    assert [len(block.more) for block in bundle.network.context] == [0, 1, 1]
    volume = np.random.default_rng(0).integers(-200, 300, (20, 40, 44)).astype(np.int16)
    grid = Geometry(volume.shape, (2.5, 0.8, 0.8), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
    assert Segmenter(bundle).labels(volume, grid).shape == volume.shape


def test_patches_must_suit_the_depth(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(work, tmp_path / "run", depth=6)) == 1
    assert "the network needs sizes that 32 divides" in capsys.readouterr().err
    assert main(arguments(work, tmp_path / "run", depth=2, context_blocks=[1, 1, 1])) == 1
    assert "'context_blocks' must be 1 to 2 numbers from 1 to 16" in capsys.readouterr().err


def test_a_training_of_before_a_setting_was_there_continues(work: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(arguments(work, run, epochs=1)) == 0
    file = run / "settings.json"
    settings = json.loads(file.read_text())
    for name in ("depth", "context_blocks", "dice_of"):
        del settings[name]
    file.write_text(json.dumps(settings))
    assert main(arguments(work, run, epochs=2)) == 0
    assert len(rows(run)) == 2


def test_dice_of_patches_is_what_is_trained_with(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = ["loss=dice_ce", "class_weights=equal"]
    losses = {}
    for name in ("batch", "patch"):
        run = tmp_path / name
        assert main([*arguments(work, run, epochs=1), *plain, f"dice_of={name}"]) == 0
        losses[name] = float(rows(run)[0]["val_loss"])
    assert losses["batch"] != losses["patch"]
    assert main([*arguments(work, tmp_path / "run", dice_of="patch")]) == 1
    assert "'dice_of' must be batch with a loss without Dice" in capsys.readouterr().err


def test_whole_volumes_are_validated_on_a_copy_of_the_network(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 some of its layers are replaced by others."""
    seen: list[tuple[bool, str]] = []

    class Watched(Segmenter):
        def __init__(self, bundle: Bundle, **options: Any) -> None:
            trained = [one.network for one in gc.get_objects() if type(one) is Trainer]
            seen.append((any(bundle.network is network for network in trained), options["precision"]))
            super().__init__(bundle, **options)

    monkeypatch.setattr("trainer.loop.Segmenter", Watched)
    run = tmp_path / "run"
    assert main(arguments(work, run, epochs=1, volume_epochs=1, precision="bfloat16")) == 0
    assert seen == [(False, "bfloat16")]


def test_the_best_bundle_is_of_the_best_epoch(work: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(arguments(work, run, epochs=4)) == 0
    scores = [(float(row["val_pooled_pancreas"]) + float(row["val_pooled_cancer"])) / 2 for row in rows(run)]
    done = read_bundle(run / "bundle").description.provenance["epochs_done"]
    assert done == int(np.argmax(scores)) + 1


def test_a_training_begins_with_the_weights_of_a_bundle(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, fine = tmp_path / "first", tmp_path / "fine"
    assert main(arguments(work, first, epochs=3)) == 0
    command = [*arguments(work, fine, epochs=1, learning_rate=1e-30), "--weights", str(first / "bundle-last")]
    assert main(command) == 0
    for name, weight in weights(first).items():
        assert torch.equal(weights(fine)[name], weight)
    assert rows(fine)[0]["val_loss"] == rows(first)[-1]["val_loss"]
    assert "was trained with" not in capsys.readouterr().err
    provenance = read_bundle(fine / "bundle").description.provenance
    assert (
        provenance["initial_weights"] == json.loads((fine / "settings.json").read_text())["initial_weights"]
    )
    assert main([*command[:-2], "--set", "epochs=2"]) == 1
    assert "initial_weights" in capsys.readouterr().err


def test_weights_of_another_network_are_refused(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(work, tmp_path / "first", epochs=1)) == 0
    bundle = tmp_path / "first" / "bundle"
    assert main([*arguments(work, tmp_path / "fine", base_filters=3), "--weights", str(bundle)]) == 1
    assert f"with base_filters 3, but {bundle} has base_filters 2" in capsys.readouterr().err
    assert not (tmp_path / "fine").exists()


def test_what_weights_are_not_used_to_is_said(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(work, tmp_path / "first", epochs=1)) == 0
    bundle = read_bundle(tmp_path / "first" / "bundle")
    other = dataclasses.replace(bundle.description, window_hu=(-200.0, 300.0))
    write_bundle(tmp_path / "other", Bundle(bundle.network, other))
    command = [*arguments(work, tmp_path / "fine", epochs=1), "--weights", str(tmp_path / "other")]
    assert main(command) == 0
    assert "was trained with window_hu (-200.0, 300.0), and these patches have" in capsys.readouterr().err


TRAIN = "import sys; from trainer.cli import main; sys.exit(main())"
FREQUENT: dict[str, object] = {
    "epochs": 6,  # of four batches; the last kill strikes long before the end
    "checkpoint_minutes": 1e-9,  # a checkpoint after every step
    "ema": 0.9,
    "augment": {"mirror_zyx": [0.5, 0.5, 0.5], "rotate_share": 0.5, "noise_share": 0.5},
}
WAYS: list[dict[str, object]] = [
    {},
    {
        "source": "volumes",
        "precision": "float16",
        "accumulate": 2,
        "volume_epochs": 2,
        "schedule": "polynomial",
    },
]
KILLS = int(os.environ.get("DECATHLON_KILLS", "2"))  # docs/TRAINING.md: measured with 20


def test_killed_at_any_moment_and_continued_it_ends_with_the_same_weights(work: Path, tmp_path: Path) -> None:
    undisturbed = []
    for number, way in enumerate(WAYS):
        undisturbed.append(tmp_path / f"undisturbed_{number}")
        assert main([*arguments(work, undisturbed[-1], **FREQUENT, **way), "--threads", "1"]) == 0
    for seed in range(KILLS):
        chance = random.Random(seed)
        killed = tmp_path / f"killed_{seed}"
        number = seed % len(WAYS)
        command = [*arguments(work, killed, **FREQUENT, **WAYS[number]), "--threads", "1"]
        for least in sorted(chance.sample(range(1, 14), 2)):
            kill_after(command, killed, least, more_s=chance.uniform(0, 0.3))
        assert main([*command, "--resume"]) == 0
        assert_equal_runs(undisturbed[number], killed)
        assert not list(killed.rglob(".tmp-*"))


def kill_after(command: list[str], run: Path, least: int, *, more_s: float) -> None:
    """Kill a training some time after it has `least` batches in a checkpoint, perhaps amid writing the next."""
    process = subprocess.Popen([sys.executable, "-c", TRAIN, *command], stderr=subprocess.DEVNULL)
    while process.poll() is None and progress_of(run) < least:
        time.sleep(0.005)
    time.sleep(more_s)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was to be killed before its end"


def assert_equal_runs(one: Path, other: Path) -> None:
    for bundle in ("bundle", "bundle-last"):
        expected, found = weights(one, bundle), weights(other, bundle)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    timing = {"seconds", "waited_share", "voxels_per_s"}
    for row, again in zip(rows(one), rows(other), strict=True):
        assert {k: v for k, v in row.items() if k not in timing} == {
            k: v for k, v in again.items() if k not in timing
        }
    assert (one / "overlay.png").read_bytes() == (other / "overlay.png").read_bytes()


def progress_of(run: Path) -> int:
    """Return the batches, of four an epoch, that the newest checkpoint has seen."""
    files = (run / "checkpoints").glob("epoch_*.pt")
    return max((4 * epochs + batches for epochs, batches in map(checkpoint.progress_of, files)), default=0)


def test_a_run_folder_keeps_its_settings(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(arguments(work, run, epochs=1)) == 0
    assert main(arguments(work, run, epochs=1, dropout=0.5)) == 1
    assert "holds a training with other settings (dropout 0.2 there, 0.5 now" in capsys.readouterr().err
    (run / "settings.json").unlink()
    assert main(arguments(work, run, epochs=1)) == 1
    assert "but not the settings.json that says how they were made" in capsys.readouterr().err


def test_a_training_that_has_ended_can_go_on(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The paper's schedule does not know how many epochs there will be."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    for epochs in (1, 3):
        assert main([*arguments(work, run, epochs=epochs), "--threads", "1"]) == 0
    assert "continuing with epochs = 3 instead of 1" in capsys.readouterr().err
    assert main([*arguments(work, whole, epochs=3), "--threads", "1"]) == 0
    assert_equal_runs(whole, run)


def test_what_is_gone_from_a_training_that_has_ended_is_made_again(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = arguments(work, run, epochs=2, ema=0.9)
    assert main(command) == 0
    csv, last = (run / "metrics.csv").read_bytes(), (run / "bundle-last" / "model.safetensors").read_bytes()
    (run / "metrics.csv").unlink()
    shutil.rmtree(run / "bundle-last")
    shutil.rmtree(run / "bundle")
    is_best = read_history(run).best_epoch == 2
    capsys.readouterr()
    assert main(command) == 0
    assert (run / "metrics.csv").read_bytes() == csv
    assert (run / "bundle-last" / "model.safetensors").read_bytes() == last
    assert (run / "bundle").is_dir() == is_best
    assert ("bundle is gone" in capsys.readouterr().err) != is_best


def test_short_epochs_are_drawn_seldom_and_the_last_always(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.loop, "PICTURES_SHARE", 1e-6)
    run = tmp_path / "run"
    assert main(arguments(work, run, epochs=5)) == 0
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Images("overlay")] == [1, 5]
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5]
    assert len(rows(run)) == 5
    assert read_bundle(run / "bundle-last").description.provenance["epochs_done"] == 5
    assert read_bundle(run / "bundle").description.provenance["epochs_done"] == read_history(run).best_epoch


def test_a_training_that_ends_early_leaves_its_last_weights_and_pictures(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.loop, "PICTURES_SHARE", 1e-6)
    run = tmp_path / "run"
    command = arguments(work, run, epochs=9, patience=2, learning_rate=1e-12, dropout=0)
    assert main(command) == 0
    done = len(rows(run))
    assert 1 < done < 9
    last = read_bundle(run / "bundle-last")
    assert last.description.provenance["epochs_done"] == done
    state = checkpoint.load_newest_checkpoint(run / "checkpoints", torch.device("cpu"))
    assert state is not None
    kept = last.network.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in state["network"].items())
    written = (run / "bundle-last" / "model.safetensors").stat().st_mtime_ns
    assert main(command) == 0
    assert (run / "bundle-last" / "model.safetensors").stat().st_mtime_ns == written


def test_the_seconds_of_an_epoch_include_what_was_kept_of_the_one_before(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = trainer.loop.save_checkpoint

    def slowly(*args: Any, **options: Any) -> None:
        save(*args, **options)
        time.sleep(3)

    monkeypatch.setattr(trainer.loop, "save_checkpoint", slowly)
    run = tmp_path / "run"
    assert main(arguments(work, run, epochs=2)) == 0
    assert float(rows(run)[1]["seconds"]) >= 3


def read_history(run: Path) -> History:
    state = checkpoint.load_newest_checkpoint(run / "checkpoints", torch.device("cpu"))
    assert state is not None
    return History.from_rows(("background", "pancreas", "cancer"), state["history"])


def test_two_trainings_do_not_share_a_folder(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with alone_in(run, "decathlon train"):
        assert main(arguments(work, run, epochs=1)) == 1
    said = capsys.readouterr().err
    assert f"decathlon train: decathlon train (process {os.getpid()} on " in said
    assert f"is at work in {run}: wait for it to end" in said
    assert not (run / "settings.json").exists()


def test_checkpoints_are_kept_by_progress_not_by_name(tmp_path: Path) -> None:
    (tmp_path / "epoch_0007 (copy).pt").write_bytes(b"left alone")
    for epochs, batches in (
        (9998, 0),
        (9999, 0),
        (9999, 999_999),
        (9999, 1_000_000),
        (10_000, 0),
        (10_001, 0),
    ):
        checkpoint.save_checkpoint(
            tmp_path, {"at": [epochs, batches]}, epochs=epochs, batches=batches, keep=3
        )
        state = checkpoint.load_newest_checkpoint(tmp_path, torch.device("cpu"))
        assert state is not None
        assert state["at"] == [epochs, batches]
    names = {path.name for path in tmp_path.iterdir() if "copy" not in path.name}
    assert names == {"epoch_9999_batch_1000000.pt", "epoch_10000.pt", "epoch_10001.pt"}


def test_a_full_disk_is_one_sentence(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0\nframe #0: …")

    monkeypatch.setattr(torch, "save", full)
    assert main(arguments(work, tmp_path / "run", epochs=1)) == 1
    said = capsys.readouterr().err
    assert "a checkpoint could not be written ([enforce fail" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert "frame #0" not in said


def test_a_lack_of_memory_is_one_sentence(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(WeightedCrossEntropy, "forward", none_left)
    assert main(arguments(work, tmp_path / "run", epochs=1)) == 1
    said = capsys.readouterr().err
    assert "out of memory: close other programs, or train with a smaller batch_size" in said.splitlines()[-1]
    assert "Traceback" not in said


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_trains(work: Path, tmp_path: Path, name: str) -> None:
    small = [
        "base_filters=2",
        "epochs=1",
        "volume_epochs=1",
        "epoch_patches=4",
        "batch_size=2",
        "precision=float32",
    ]
    command = [
        "train",
        str(work),
        "--preset",
        name,
        "--out",
        str(tmp_path / "run"),
        "--device",
        "cpu",
        "--set",
        *small,
    ]
    assert main(command) == 0
    described = read_bundle(tmp_path / "run" / "bundle").description.provenance["settings"]
    assert described["loss"] == read_preset(name).train["loss"]
    assert np.isfinite(float(rows(tmp_path / "run")[0]["val_volume_pancreas"]))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--resume"], "--resume asks for an earlier training"),
        (["--device", "tpu"], "--device tpu cannot be used here"),
        (["--device", "cuda:99"], "--device cuda:99 cannot be used here"),
        (["--set", "epoch=3"], "unknown setting 'epoch'; did you mean 'epochs'?"),
        (["--set", "class_weights=[1,2]"], "class_weights must have a number for each of the 3 labels"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    work: Path, tmp_path: Path, extra: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(work), "--out", str(tmp_path / "run"), *extra]) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists(), "a refused command must not claim the folder"


@pytest.mark.parametrize(("most", "batches"), [(10, 4), (1, 2)])
def test_losses_that_stay_not_finite_end_the_training_in_one_sentence(
    work: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    batches: int,
) -> None:
    monkeypatch.setattr(WeightedCrossEntropy, "forward", lambda _, logits, __: logits.sum() * float("nan"))
    run = tmp_path / "run"
    assert main(arguments(work, run, most_skipped=most)) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert (
        f"the loss was not finite in {batches} batches of epoch 1, the last of them batch {batches}"
        in message
    )
    assert not (run / "checkpoints").exists()
    assert not (run / "bundle").exists()


def test_a_batch_whose_loss_is_not_finite_is_skipped_and_said(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = WeightedCrossEntropy.forward, []

    def fail_once(self: WeightedCrossEntropy, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls.append(None)
        return forward(self, logits, target) * (float("nan") if len(calls) == 2 else 1.0)

    monkeypatch.setattr(WeightedCrossEntropy, "forward", fail_once)
    run = tmp_path / "run"
    assert main(arguments(work, run)) == 0
    assert "not finite in epoch 1, batch 2: the batch is skipped" in capsys.readouterr().err
    assert all(np.isfinite(float(row["train_loss"])) for row in rows(run))
    assert all(bool(weight.isfinite().all()) for weight in weights(run).values())


def test_a_gradient_that_is_not_finite_is_skipped_and_said(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = WeightedCrossEntropy.forward, []

    def fail_once(self: WeightedCrossEntropy, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls.append(None)
        loss: torch.Tensor = forward(self, logits, target)
        if len(calls) == 2:
            loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    monkeypatch.setattr(WeightedCrossEntropy, "forward", fail_once)
    run = tmp_path / "run"
    assert main(arguments(work, run, gradient_norm=1.0)) == 0
    assert "the gradient is not finite in epoch 1, batch 2: the batch is skipped" in capsys.readouterr().err
    assert all(bool(weight.isfinite().all()) for weight in weights(run).values())


def test_float16_may_overflow_until_its_scale_is_found_but_not_for_ever(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = WeightedCrossEntropy.forward

    def overflow(self: WeightedCrossEntropy, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = forward(self, logits, target)
        if loss.requires_grad:
            loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    monkeypatch.setattr(WeightedCrossEntropy, "forward", overflow)
    ways = {"precision": "float16", "most_skipped": 0, "batch_size": 1, "epochs": 4, "ema": 0.9}
    assert main(arguments(work, tmp_path / "run", **ways)) == 1
    said = capsys.readouterr().err.splitlines()
    assert sum("the gradient overflows in epoch" in line for line in said) == 16  # from 65536 to 1
    assert "the gradient was not finite in 1 batches of epoch 3, the last of them batch 1" in said[-1]


def test_a_bundle_that_was_moved_aside_when_a_kill_came_is_put_back(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(arguments(work, run, epochs=1)) == 0
    before = weights(run, "bundle")
    (run / "bundle").rename(run / ".old-0123abcd-bundle")
    (run / ".tmp-0123abcd-bundle").mkdir()
    assert main(arguments(work, run, epochs=1)) == 0
    assert "is gone" not in capsys.readouterr().err
    assert all(torch.equal(weight, weights(run, "bundle")[name]) for name, weight in before.items())
    assert not list(run.glob(".old-*"))
    assert not list(run.glob(".tmp-*"))


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "topk_ce", "class_weights": "equal"},
        {"loss": "dice_topk", "class_weights": "equal", "deep_supervision": True},
        {"schedule": "polynomial", "optimiser": "adamw", "gradient_norm": 1.0},
        {"precision": "float16", "loss": "dice_ce", "class_weights": "equal", "learning_rate": 0.003},
        {"ema": 0.9, "accumulate": 3},
        {"source": "volumes", "label_shares": [0, 0.3, 0.6]},
        {"source": "device", "epoch_patches": 10},
        {
            "augment": {
                "mirror_zyx": [0.5, 0.5, 0.5],
                "rotate_share": 0.5,
                "noise_share": 0.5,
                "gamma_share": 0.5,
            }
        },
    ],
    ids=lambda changes: "+".join(changes),
)
def test_every_way_to_train_learns(work: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    run = tmp_path / "run"
    assert main(arguments(work, run, epochs=8, **{"class_weights": [1, 2, 4], **changes})) == 0
    losses = [float(row["train_loss"]) for row in rows(run)]
    assert min(losses[-2:]) < 0.97 * losses[0]


def test_volumes_on_the_device_give_the_patches_of_volumes_on_disk(work: Path) -> None:
    names = PatchFile(work / "train.h5").meta.training_cases
    volumes = open_volumes(work, names)
    host = VolumeBatches(volumes, (32, 16, 48), 3, patches=10, label_shares=(0, 0.5, 0.5), seed=1)
    device = DeviceVolumeBatches(host, volumes, torch.device("cpu"))
    assert len(host) == len(device) == 4
    pairs = list(zip(host.batches(2, first_batch=1), device.batches(2, first_batch=1), strict=True))
    assert len(pairs) == 3
    for (images, labels), (there, labels_there) in pairs:
        assert images.shape == (3, 1, 32, 16, 48)
        np.testing.assert_array_equal(images, there.numpy())
        np.testing.assert_array_equal(labels, labels_there.numpy())
        assert np.all((labels > 0).any(axis=(1, 2, 3)))


def test_a_volume_that_is_gone_is_named(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = PatchFile(work / "train.h5").meta.training_cases[0]
    (work / "volumes" / name / "image.npy").unlink()
    assert main(arguments(work, tmp_path / "run", source="volumes")) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"volumes/{name}" in message
    assert "set source=patches" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("batch_size", "accumulate"), [(2, 4), (1, 8), (3, 3), (3, 5)])
def test_accumulated_batches_make_the_step_of_one_large_batch(
    work: Path, tmp_path: Path, batch_size: int, accumulate: int
) -> None:
    """Eight patches make one step, also where the last batch or the last group of them is not whole."""
    # At a depth of 5 these patches leave the lowest norm two voxels, which turns a rounding of 6e-8 into 1 %.
    plain = {
        "dropout": 0,
        "epochs": 1,
        "precision": "float32",
        "optimiser": "adamw",
        "gradient_norm": 0.1,
        "depth": 2,
    }
    assert main(arguments(work, tmp_path / "one", batch_size=8, **plain)) == 0
    assert main(arguments(work, tmp_path / "two", batch_size=batch_size, accumulate=accumulate, **plain)) == 0
    one, two = gradients(tmp_path / "one"), gradients(tmp_path / "two")
    assert float((one - two).norm() / one.norm()) < 1e-4


def gradients(run: Path) -> torch.Tensor:
    """Return Adam's first moments, a tenth of the gradients of its first step, flat."""
    state = checkpoint.load_newest_checkpoint(run / "checkpoints", torch.device("cpu"))
    assert state is not None
    return torch.cat([weight["exp_avg"].flatten() for weight in state["optimiser"]["state"].values()])


def test_the_moving_average_is_validated_and_kept(work: Path, tmp_path: Path) -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, 0.0)
    average = MovingAverage(network, 0.5)
    expected = 0.0
    for step, value in enumerate([1.0, 2.0, 3.0], start=1):
        torch.nn.init.constant_(network.weight, value)
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with average.applied():
        assert network.weight.item() == pytest.approx(expected)
    assert network.weight.item() == 3.0
    assert main(arguments(work, tmp_path / "plain", epochs=1)) == 0
    assert main(arguments(work, tmp_path / "averaged", epochs=1, ema=0.999)) == 0
    plain, averaged = rows(tmp_path / "plain")[0], rows(tmp_path / "averaged")[0]
    assert plain["train_loss"] == averaged["train_loss"]
    assert plain["val_loss"] != averaged["val_loss"]
    assert not torch.equal(
        weights(tmp_path / "plain")["head.weight"], weights(tmp_path / "averaged")["head.weight"]
    )


def test_whole_volumes_are_scored_in_their_turn_and_decide_which_epoch_is_best(
    work: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert main(arguments(work, run, epochs=5, volume_epochs=2)) == 0
    scores = [float(row["val_volume_pancreas"]) for row in rows(run)]
    assert [not np.isnan(score) for score in scores] == [False, True, False, True, True]
    history = [(float(row["val_volume_pancreas"]) + float(row["val_volume_cancer"])) / 2 for row in rows(run)]
    done = read_bundle(run / "bundle").description.provenance["epochs_done"]
    assert done == int(np.nanargmax(history)) + 1
    meta = PatchFile(work / "train.h5").meta
    segmenter = Segmenter(read_bundle(run / "bundle-last"), device=torch.device("cpu"))
    again = score_volumes(segmenter, open_volumes(work, meta.validation_cases))
    assert again[1] == pytest.approx(scores[-1], abs=1e-3)


def two_processes(program: str, arguments: list[str], expected: int = 0) -> str:
    """Run a program as torchrun does on one machine; return stderr."""
    start = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "--no-python",
    ]
    ran = subprocess.run(
        [*start, sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert ran.returncode == expected, ran.stderr
    return ran.stderr


@pytest.mark.parametrize("source", ["patches", "volumes"])
def test_two_processes_see_what_one_sees_with_twice_the_batch(
    work: Path, tmp_path: Path, source: str
) -> None:
    """Every loss of two epochs, with weights that hardly move: rounding must not decide by which sign Adam steps.

    That gradients are equal, and so the steps that follow from them, is shown in float64 below.
    """
    way = {
        "learning_rate": 1e-9,
        "dropout": 0,
        "epochs": 2,
        "source": source,
        "augment": {"mirror_zyx": [0.5, 0.5, 0.5], "noise_share": 0.5},
    }
    assert main(arguments(work, tmp_path / "one", batch_size=2, **way)) == 0
    two_processes(TRAIN, arguments(work, tmp_path / "two", batch_size=1, **way))
    for one, two in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        for column in ("train_loss", "val_loss"):
            assert float(two[column]) == pytest.approx(float(one[column]), rel=1e-5)
        assert float(two["train_pooled_pancreas"]) == pytest.approx(
            float(one["train_pooled_pancreas"]),
            abs=2e-3,  # an untrained network's near ties may turn
        )
    losses = [float(row["train_loss"]) for row in rows(tmp_path / "one")]
    assert abs(losses[0] - losses[1]) > 1e-3, (
        "augmentation differs from epoch to epoch, so equal losses say something"
    )


def test_two_processes_without_a_batch_each_are_refused(work: Path, tmp_path: Path) -> None:
    said = two_processes(TRAIN, arguments(work, tmp_path / "run", batch_size=6), expected=1)
    assert "has 8 patches, which make no batch of 6 for each of 2 processes" in said
    assert not (tmp_path / "run").exists()


GRADIENTS = """
import torch
from torch import distributed
from algorithm.network import UNet3D
from trainer.distributed import joined, shared
from trainer.losses import WeightedCrossEntropy

def network():
    torch.manual_seed(0)
    return UNet3D(in_channels=1, num_classes=3, base_filters=2, dropout=0.0).double()

generator = torch.Generator().manual_seed(1)
images = torch.randn(2, 1, 16, 16, 32, generator=generator, dtype=torch.float64)
target = torch.randint(0, 3, (2, 16, 16, 32), generator=generator)
loss = WeightedCrossEntropy((1.0, 10.0, 50.0)).double()
alone = network()
loss(alone(images), target).backward()
with joined() as world:
    together = network()
    mine = slice(world.rank, world.rank + 1)
    module = shared(together, world, torch.device("cpu"))
    loss(module(images[mine])[0], target[mine]).backward()
    for one, two in zip(alone.parameters(), together.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-9, atol=1e-12)
    assert world.agree(torch.device("cpu"), on=True)
    assert not world.agree(torch.device("cpu"), on=world.is_first)
"""


def test_two_processes_take_the_steps_of_one_with_twice_the_batch(work: Path, tmp_path: Path) -> None:
    """Gradients in float64 are equal; a training that follows them learns, and one process says so."""
    two_processes(GRADIENTS, [])
    run = tmp_path / "run"
    said = two_processes(TRAIN, arguments(work, run, batch_size=1, epochs=6, volume_epochs=3))
    assert len(re.findall("(?<!best )epoch 6: loss", said)) == 1, said
    losses = [float(row["train_loss"]) for row in rows(run)]
    assert losses[-1] < 0.95 * losses[0]
    said = two_processes(TRAIN, [*arguments(work, run, batch_size=1, epochs=6, volume_epochs=3), "--resume"])
    assert "best epoch" in said


def test_patience_ends_a_training_that_gets_no_better(work: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    nothing = {"learning_rate": 1e-12, "epochs": 9, "patience": 2, "dropout": 0}
    assert main(arguments(work, run, **nothing)) == 0
    assert len(rows(run)) == 3
    assert main(arguments(work, run, **nothing)) == 0, "the same command has nothing left to do"
    assert len(rows(run)) == 3


def test_patience_waits_for_the_scores_it_judges_by(work: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    nothing = {"learning_rate": 1e-12, "epochs": 20, "patience": 2, "volume_epochs": 3, "dropout": 0}
    assert main(arguments(work, run, **nothing)) == 0
    assert len(rows(run)) == 6  # the first score is the best for ever; the second says so


def test_a_missing_work_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path / "nothing"), "--out", str(tmp_path / "run")]) == 1
    assert "train.h5" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_is_named(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(arguments(work, run, epochs=1)) == 0
    newest = max((run / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:1000])
    assert main(arguments(work, run, epochs=1)) == 1
    assert f"{newest.name} is not a readable checkpoint" in capsys.readouterr().err.splitlines()[-1]


def test_class_weights(work: Path) -> None:
    meta = PatchFile(work / "train.h5").meta
    assert class_weights(TrainSettings(), meta) == (1, 10, 50)
    assert class_weights(TrainSettings(class_weights="equal"), meta) == (1, 1, 1)
    voxels = meta.class_voxels
    expected = (1, voxels[0] / voxels[1], voxels[0] / voxels[2])
    assert class_weights(TrainSettings(class_weights="inverse"), meta) == pytest.approx(expected)
    with pytest.raises(InputError, match="a number for each of the 3 labels"):
        class_weights(TrainSettings(class_weights=(1.0, 2.0)), meta)


def test_inverse_frequencies_of_task07(work: Path, real_data: Path) -> None:
    """Section 4.2.1 gives [1, 525, 9980]; the voxels of all 281 cases agree about the pancreas, not the tumour."""
    with (real_data / "task07_cases.csv").open() as file:
        cases = list(csv.DictReader(file))
    whole = sum(math.prod(int(case[f"shape_{axis}"]) for axis in "zyx") for case in cases)
    pancreas, tumour = (
        sum(int(case[name]) for case in cases) for name in ("pancreas_voxels", "tumour_voxels")
    )
    voxels = (whole - pancreas - tumour, pancreas, tumour)
    meta = dataclasses.replace(PatchFile(work / "train.h5").meta, class_voxels=voxels)
    assert class_weights(TrainSettings(class_weights="inverse"), meta) == pytest.approx(
        (1, 526, 3502), abs=0.5
    )


def test_scores_of_an_epoch_are_those_worked_out_by_hand() -> None:
    # Batch 1 has 2 pancreas voxels, 1 found, none invented: Dice 2/3. Batch 2 has no pancreas: Dice 0 in the mean.
    confusions = np.array([[[6, 0], [1, 1]], [[8, 0], [0, 0]]])
    scores = EpochScores.of(np.array([1.0, 2.0]), confusions)
    assert scores.loss == 1.5
    assert scores.batch_dice[1] == pytest.approx((2 / 3 + 0) / 2)
    assert scores.pooled_dice[1] == pytest.approx(2 / 3)


def test_the_best_epoch_is_the_first_of_equals() -> None:
    history = History(("background", "pancreas"))
    for epoch, dice in enumerate((0.2, 0.5, 0.5), start=1):
        scores = EpochScores(1.0, (1.0, dice), (1.0, dice))
        rest = {"learning_rate": 0.1, "seconds": 1.0, "waited_share": 0.0, "voxels_per_s": 1.0}
        history.append(epoch=epoch, train=scores, val=scores, **rest)
    assert history.best_epoch == 2


def test_every_step_has_a_seed_of_its_own() -> None:
    seeds = {step_seed(seed, epoch, step) for seed in range(5) for epoch in range(20) for step in range(20)}
    assert len(seeds) == 5 * 20 * 20


def test_the_paper_preset_is_the_paper() -> None:
    settings = TrainSettings.read(read_preset("paper").train, "paper")
    assert settings == TrainSettings()


def test_the_fast_preset_is_valid() -> None:
    assert TrainSettings.read(read_preset("fast").train, "fast").loss == "dice_ce"


def test_devices_that_are_not_there_are_refused() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="--device banana cannot be used here"):
        choose_device("banana")


def test_the_random_state_of_numpy_is_left_alone(work: Path, tmp_path: Path) -> None:
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    assert main(arguments(work, tmp_path / "run", epochs=1)) == 0
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_patches_that_the_network_cannot_take_are_refused_before_the_work(
    make_task: MakeTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = make_task([(20, 40, 44), (18, 44, 40)])
    for shape, required in (("30 32 32", "sizes that 16 divides"), ("16 16 16", "one size >= 32")):
        arguments = [
            "prepare",
            str(task),
            "--out",
            str(tmp_path / "work"),
            "--patch-shape-zyx",
            *shape.split(),
        ]
        assert main(arguments) == 1
        assert required in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "work").exists()


def test_an_output_that_is_a_file_is_one_sentence(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(arguments(work, tmp_path / "file")) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "file" in error.splitlines()[-1]


def test_set_may_be_given_twice(work: Path, tmp_path: Path) -> None:
    assert main([*arguments(work, tmp_path / "run", epochs=1), "--set", "dropout=0.4"]) == 0
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert (settings["epochs"], settings["dropout"]) == (1, 0.4)


def test_validation_patches_must_belong_to_the_training_patches(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "val.h5").write_bytes((work / "train.h5").read_bytes())
    assert main(arguments(work, tmp_path / "run")) == 1
    assert "must hold training and val.h5 validation patches" in capsys.readouterr().err.splitlines()[-1]
