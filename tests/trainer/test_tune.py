from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from algorithm.bundle import Bundle, read_bundle, write_bundle
from algorithm.errors import InputError
from algorithm.locate import CoarseToFine
from algorithm.postprocessing import Postprocessing
from algorithm.segmenter import Segmenter
from tests.bundles import random_bundle
from trainer.cli import main
from trainer.patches import PatchFile
from trainer.tune import TEMPERATURES, _segment, candidates, tune
from trainer.volume_batches import open_volumes

Labels = NDArray[np.uint8]


def bundle(coarse: Bundle | None = None, **changes: object) -> Bundle:
    about = {"spacing_zyx_mm": (2.5, 0.8, 0.8), "window_hu": (-100.0, 200.0), "patch_shape_zyx": (16, 16, 32)}
    return random_bundle(coarse, **{**about, **changes})


class Says(Segmenter):
    """Answers with what a function makes of the reference, in place of a network."""

    def __init__(self, work: Path, answer: Callable[[Labels], NDArray[np.float32]]) -> None:
        super().__init__(bundle(), device=torch.device("cpu"))
        with PatchFile(work / "val.h5") as patches:
            self.cases = patches.meta.validation_cases
        self.references = iter([label for _, label in open_volumes(work, self.cases)])
        self.answer = answer

    def class_maps(self, shape_zyx: object, *_: object, **__: object) -> Iterator[NDArray[np.float32]]:
        """Yield the answer in two pieces."""
        reference = next(self.references)
        assert reference.shape == shape_zyx
        yield from np.split(self.answer(reference), [5], axis=1)


def certain(labels: Labels) -> NDArray[np.float32]:
    maps = np.full((3, *labels.shape), 0.01, np.float32)
    np.put_along_axis(maps, labels[np.newaxis].astype(np.int64), np.float32(0.98), axis=0)
    return maps


def with_a_stray_piece(reference: Labels) -> NDArray[np.float32]:
    labels = reference.copy()
    corner = labels[:4, :8, :8]
    assert not corner.any()
    corner[:] = 2
    corner[0] = 1
    return certain(labels)


def test_a_stray_piece_is_worth_postprocessing(work: Path) -> None:
    tuned = tune(bundle(), work, Says(work, with_a_stray_piece))
    assert tuned.postprocessing == Postprocessing(largest_component=True)
    assert tuned.dice == (1.0, 1.0)
    assert all(before < 0.95 for before in tuned.dice_before)
    assert tuned.cases == 1


def test_a_doubtful_choice_is_said(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tune(bundle(random_bundle(), coarse_to_fine=CoarseToFine()), work, Says(work, certain))
    assert "chosen on 1 validation cases: what suits so few may not suit others" in caplog.text
    assert "the temperature is at the end of what was tried, 0.25 to 4" in caplog.text
    assert "coarse pass was not used" in caplog.text


def test_where_nothing_is_gained_nothing_is_done(work: Path) -> None:
    tuned = tune(bundle(), work, Says(work, certain))
    assert tuned.postprocessing == Postprocessing()
    assert tuned.dice == tuned.dice_before == (1.0, 1.0)


def test_an_overconfident_network_is_cooled(work: Path) -> None:
    """References are drawn from softmax(logits); probabilities of twice the logits have the temperature 2."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (3, 40, 60, 60))
    p = np.exp(logits) / np.exp(logits).sum(axis=0)
    reference = (rng.random(p.shape[1:]) > np.cumsum(p, axis=0)).sum(axis=0).astype(np.uint8).clip(0, 2)
    squared = (p**2 / (p**2).sum(axis=0)).astype(np.float32)
    segmenter = Says(work, lambda _: squared)
    segmenter.references = iter([reference])
    labels, loss = _segment(segmenter, np.zeros((1, *reference.shape), np.int16), reference)
    np.testing.assert_array_equal(labels, p.argmax(axis=0))
    assert TEMPERATURES[loss.argmin()] == pytest.approx(2.0, rel=0.1)
    at_two = np.interp(np.log(2), np.log(TEMPERATURES), loss)
    chosen = np.take_along_axis(p, reference[np.newaxis].astype(np.int64), axis=0)
    assert at_two == pytest.approx(-np.log(chosen).mean(), rel=0.01)


def test_two_labels_have_no_lesions_to_tune() -> None:
    assert candidates(2) == [Postprocessing(), Postprocessing(largest_component=True)]
    assert candidates(3)[0] == Postprocessing()
    assert len(set(candidates(3))) == len(candidates(3)) == 60


def test_the_verb_writes_another_bundle(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "bundle", bundle())
    before = (tmp_path / "bundle" / "model.json").read_text()
    command = ["tune", str(tmp_path / "bundle"), "--work", str(work), "--device", "cpu", "--out"]
    assert main([*command, str(tmp_path / "tuned")]) == 0
    said = capsys.readouterr().out
    assert "mean Dice of pancreas over 1 cases: " in said
    assert "postprocessing: " in said
    tuned = read_bundle(tmp_path / "tuned")
    assert f"temperature {tuned.description.temperature:g}: " in said
    record = tuned.description.provenance["tuned"]
    assert record["cases"] == 1
    assert record["loss"] <= record["loss_before"]
    assert (tmp_path / "bundle" / "model.json").read_text() == before
    for name, tensor in bundle().network.state_dict().items():
        assert torch.equal(tuned.network.state_dict()[name], tensor), name
    assert main([*command, str(tmp_path / "bundle")]) == 1
    assert "--out must be another folder than the bundle itself" in capsys.readouterr().err
    assert main([*command, str(tmp_path)]) == 1
    assert "would be lost" in capsys.readouterr().err


def test_data_that_was_prepared_in_another_way_is_refused(work: Path) -> None:
    other = bundle(window_hu=(-150.0, 250.0))
    with pytest.raises(InputError, match=r"prepared with window_hu \(-100, 200\), but the bundle has"):
        tune(other, work, Says(work, certain))


def test_what_is_written_is_json_without_nan(work: Path, tmp_path: Path) -> None:
    def without_cancer(reference: Labels) -> NDArray[np.float32]:
        reference = reference.copy()
        return certain(reference * (reference == 1))

    tuned = tune(bundle(), work, Says(work, without_cancer))
    write_bundle(tmp_path / "tuned", tuned.apply(bundle()))
    assert (
        json.loads((tmp_path / "tuned" / "model.json").read_text())["provenance"]["tuned"]["dice"][1] == 0.0
    )
