"""What a GPU must give as the CPU does; left out where there is none (benchmarks/gpu.sh runs them there)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from algorithm.bundle import read_bundle
from algorithm.segmenter import Segmenter
from tests.trainer.runs import arguments, rows
from trainer.augment import Augmenter, AugmentSettings
from trainer.cli import main
from trainer.losses import DiceTopK, TopKCrossEntropy, WeightedCrossEntropy
from trainer.patches import PatchFile
from trainer.volume_batches import DeviceVolumeBatches, VolumeBatches, open_volumes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def on(device: str, work: Path, run: Path, **changes: object) -> list[str]:
    words = arguments(work, run, **changes)
    words[words.index("--device") + 1] = device
    return words


@pytest.mark.parametrize("loss", [WeightedCrossEntropy, TopKCrossEntropy, DiceTopK])
def test_losses_and_their_gradients(loss: type[torch.nn.Module]) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 8, 16, 16, generator=generator)
    target = torch.randint(0, 3, (2, 8, 16, 16), generator=generator)
    values = []
    for device in (CPU, CUDA):
        here = logits.clone().to(device).requires_grad_()
        value = loss((1.0, 10.0, 50.0)).to(device)(here, target.to(device))
        value.backward()
        assert here.grad is not None
        values.append((value.detach().cpu(), here.grad.cpu()))
    torch.testing.assert_close(values[1], values[0], rtol=1e-4, atol=1e-7)


def test_a_training_without_chance_follows_that_of_the_cpu(work: Path, tmp_path: Path) -> None:
    plain = {"dropout": 0, "precision": "float32", "epochs": 2, "learning_rate": 0.001}
    for device in ("cpu", "cuda"):
        assert main(on(device, work, tmp_path / device, **plain)) == 0
    for name in ("train_loss", "val_loss"):
        pairs = zip(rows(tmp_path / "cpu"), rows(tmp_path / "cuda"), strict=True)
        for there, here in pairs:
            assert float(here[name]) == pytest.approx(float(there[name]), rel=0.02)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "auto", "source": "device"},
        {"precision": "float16", "source": "volumes", "learning_rate": 0.003},
        {"compile": True},
        {"loss": "dice_topk", "deep_supervision": True, "ema": 0.9, "volume_epochs": 4},
        {"augment": {"rotate_share": 0.5, "elastic_share": 0.5, "noise_share": 0.5, "blur_share": 0.5}},
    ],
    ids=lambda changes: "+".join(changes),
)
def test_every_way_to_train_learns(work: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    run = tmp_path / "run"
    assert main(on("cuda", work, run, **{"class_weights": [1, 2, 4], "epochs": 8, **changes})) == 0
    losses = [float(row["train_loss"]) for row in rows(run)]
    assert min(losses[-2:]) < 0.97 * losses[0]


def test_volumes_on_the_gpu_give_the_patches_of_volumes_on_disk(work: Path) -> None:
    volumes = open_volumes(work, PatchFile(work / "train.h5").meta.training_cases)
    host = VolumeBatches(volumes, (16, 16, 32), 2, patches=8, label_shares=(0, 0.5), seed=1, pinned=True)
    there = DeviceVolumeBatches(host, volumes, CUDA)
    for (images, labels), (on_gpu, labels_on_gpu) in zip(host.batches(0), there.batches(0), strict=True):
        np.testing.assert_array_equal(images, on_gpu.cpu().numpy())
        np.testing.assert_array_equal(labels, labels_on_gpu.cpu().numpy())


def test_augmentation_but_for_noise_is_that_of_the_cpu() -> None:
    settings = AugmentSettings(
        mirror_zyx=(0.5, 0.5, 0.5),
        rotate_share=1,
        scale_share=1,
        blur_share=1,
        gamma_share=1,
        contrast_share=1,
    )
    augment = Augmenter(settings, (2.5, 0.8, 0.8), seed=3)
    images = torch.randn(2, 1, 8, 24, 24, generator=torch.Generator().manual_seed(0))
    labels = (images[:, 0] > 1).long()
    indices = np.arange(2, dtype=np.int64)
    expected, expected_labels = augment(images, labels, indices, epoch=1)
    found, found_labels = augment(images.to(CUDA), labels.to(CUDA), indices, epoch=1)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)
    assert (found_labels.cpu() == expected_labels).float().mean() > 0.999


def test_segmentation_is_that_of_the_cpu(work: Path, tmp_path: Path) -> None:
    assert main(on("cuda", work, tmp_path / "run", epochs=6)) == 0
    bundle = read_bundle(tmp_path / "run" / "bundle")
    prepared = np.random.default_rng(0).normal(0, 1, (1, 24, 40, 40)).astype(np.float32)
    labels = [Segmenter(bundle, device=device).network_labels(prepared) for device in (CPU, CUDA)]
    assert (labels[0] == labels[1]).mean() > 0.995
