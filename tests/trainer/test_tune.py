from __future__ import annotations

import dataclasses
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from algorithm.bundle import Bundle, read_bundle, read_bundles, write_bundle
from algorithm.errors import InputError
from algorithm.locate import CoarseToFine
from algorithm.postprocessing import Postprocessing
from algorithm.segmenter import Segmenter
from tests.bundles import random_bundle
from trainer import tune as tune_module
from trainer.cli import main
from trainer.parts import digest_of_cases
from trainer.patches import PatchFile
from trainer.tune import LESION_WEIGHT, TEMPERATURES, Fold, Tuned, _segment, candidates, tune
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


def tune_one(its: Bundle, work: Path, segmenter: Segmenter, **options: float | None) -> Tuned:
    return tune([Fold(its, work)], lambda _: segmenter, **options)


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
    tuned = tune_one(bundle(), work, Says(work, with_a_stray_piece))
    assert tuned.postprocessing == Postprocessing(largest_component=True)
    assert tuned.dice == (1.0, 1.0)
    assert all(before < 0.95 for before in tuned.dice_before)
    assert tuned.cases == 1


def test_a_doubtful_choice_is_said(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tune_one(bundle(random_bundle(), coarse_to_fine=CoarseToFine()), work, Says(work, certain))
    assert "chosen on 1 validation cases: what suits so few may not suit others" in caplog.text
    assert "the temperature is at the end of what was tried, 0.25 to 4" in caplog.text
    assert "coarse pass was not used" in caplog.text


def test_where_nothing_is_gained_nothing_is_done(work: Path) -> None:
    tuned = tune_one(bundle(), work, Says(work, certain))
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
    np.testing.assert_array_equal(labels[0], p.argmax(axis=0))
    weighed = squared * np.array([1, 1, 4], np.float32)[:, np.newaxis, np.newaxis, np.newaxis]
    np.testing.assert_array_equal(labels[LESION_WEIGHT.index(4.0)], weighed.argmax(axis=0))
    assert TEMPERATURES[loss.argmin()] == pytest.approx(2.0, rel=0.1)
    at_two = np.interp(np.log(2), np.log(TEMPERATURES), loss)
    chosen = np.take_along_axis(p, reference[np.newaxis].astype(np.int64), axis=0)
    assert at_two == pytest.approx(-np.log(chosen).mean(), rel=0.01)


def unsure(reference: Labels) -> NDArray[np.float32]:
    """See every tumour at 0.3, below the organ's 0.6, and in a corner a false one at 0.1."""
    maps = certain(reference * (reference == 1))
    for place, share in ((reference == 2, 0.3), (np.indices(reference.shape).max(axis=0) < 6, 0.1)):
        maps[0][place], maps[1][place], maps[2][place] = 0.1, 0.9 - share, share
    return maps


def test_a_weight_that_finds_the_lesions_is_worth_having(work: Path) -> None:
    tuned = tune_one(bundle(), work, Says(work, unsure))
    assert tuned.postprocessing.lesion_weight == 4.0
    assert tuned.dice_before[1] == 0.0
    assert tuned.dice[1] == 1.0
    assert tuned.calls is not None
    assert tuned.calls_before is not None
    assert (tuned.calls.missed, tuned.calls.false_positives_per_scan) == (0, 0.0)
    assert tuned.calls_before.missed == tuned.calls_before.lesions == tuned.calls.lesions > 0


def with_a_large_tumour(reference: Labels) -> Labels:
    """Return a reference with a second tumour, which has twenty times the voxels of the first."""
    labels = reference.copy()
    assert not labels[-6:, -14:, -12:].any()
    labels[-6:, -14:, -12:] = 2
    return labels


def doubtful(reference: Labels) -> NDArray[np.float32]:
    """See the small tumour at 0.3, and so much beside the large one: what finds the one makes the other too large."""
    maps = certain(with_a_large_tumour(np.minimum(reference, np.uint8(1))))
    beside = np.zeros(reference.shape, bool)
    beside[-6:, -14:, -24:-12] = True
    for place, shares in ((reference == 2, (0.1, 0.6, 0.3)), (beside, (0.6, 0.1, 0.3))):
        maps[:, place] = np.array(shares, np.float32)[:, np.newaxis]
    return maps


@pytest.mark.parametrize(("most", "weight", "missed"), [(None, 1.0, 1), (5.0, 4.0, 0)])
def test_misses_come_first_even_at_a_price_in_dice(
    work: Path, monkeypatch: pytest.MonkeyPatch, most: float | None, weight: float, missed: int
) -> None:
    opened = open_volumes

    def with_two(folder: Path, names: Sequence[str]) -> list[tuple[NDArray[np.int16], Labels]]:
        return [(image, with_a_large_tumour(label)) for image, label in opened(folder, names)]

    segmenter = Says(work, doubtful)
    monkeypatch.setattr(tune_module, "open_volumes", with_two)
    tuned = tune_one(bundle(), work, segmenter, most_false_positives=most)
    assert tuned.calls is not None
    assert tuned.postprocessing.lesion_weight == weight
    assert (tuned.calls.lesions, tuned.calls.missed) == (2, missed)
    assert (tuned.dice[1] < tuned.dice_before[1]) == (most is not None)


@pytest.mark.parametrize("most", [-1.0, float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused_before_anything_is_segmented(work: Path, most: float) -> None:
    segmenter = Says(work, certain)
    with pytest.raises(InputError, match="--most-false-positives must be a number from 0 on, got"):
        tune_one(bundle(), work, segmenter, most_false_positives=most)
    assert len(list(segmenter.references)) == 1


def test_cases_without_lesions_say_nothing_about_them(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_volumes

    def without(folder: Path, names: Sequence[str]) -> list[tuple[NDArray[np.int16], Labels]]:
        return [(image, np.minimum(label, np.uint8(1))) for image, label in opened(folder, names)]

    monkeypatch.setattr(tune_module, "open_volumes", without)
    tuned = tune_one(bundle(), work, Says(work, certain))  # calls a tumour where the organ is
    assert (tuned.postprocessing.lesion_weight, tuned.postprocessing.smallest_lesion_ml) == (1.0, 0.0)
    assert tuned.calls is None
    with pytest.raises(InputError, match=r"none of the 1 validation cases of .* has one"):
        tune_one(bundle(), work, Says(work, certain), most_false_positives=1.0)


def test_more_false_positives_than_are_allowed_are_refused_with_their_number(work: Path) -> None:
    with pytest.raises(InputError, match="0 a scan is fewer than any setting has on the validation cases, 1"):
        tune_one(bundle(), work, Says(work, with_a_stray_lesion), most_false_positives=0.0)


def with_a_stray_lesion(reference: Labels) -> NDArray[np.float32]:
    labels = reference.copy()
    labels[:10, :12, :12] = 2  # over 1 ml, the largest that is dropped
    return certain(labels)


def test_misses_cannot_come_first_without_lesions(work: Path) -> None:
    with pytest.raises(InputError, match="the bundle has the labels background, pancreas; leave out"):
        tune_one(two_labels(), work, Says(work, certain), most_false_positives=1.0)


def two_labels() -> Bundle:
    plain = bundle()
    return dataclasses.replace(
        plain, description=dataclasses.replace(plain.description, labels=("background", "pancreas"))
    )


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
    assert re.search(
        r"^lesions: \d of \d missed at [\d.]+ false ones a scan -> \d of \d missed at", said, re.M
    )
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
    assert "or one around it" in capsys.readouterr().err
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    assert main([*command, str(tmp_path / "notes")]) == 1
    assert "would be lost" in capsys.readouterr().err


@pytest.fixture
def folds(work: Path, tmp_path: Path) -> list[tuple[Path, Path]]:
    """Two bundles, each with a WORK of which it held out another case."""
    made = []
    for number in (0, 1):
        own = tmp_path / f"work-{number}"
        shutil.copytree(work, own)
        with PatchFile(work / "val.h5") as patches:
            names = patches.meta.validation_cases + patches.meta.training_cases
        rename_validation(own, names[number])
        model = tmp_path / f"run-{number}"
        write_bundle(model, bundle(provenance={"held_out": digest_of_cases([names[number]])}))
        made.append((model, own))
    return made


def rename_validation(work: Path, name: str) -> None:
    """Let a folder's one validation case be another."""
    with h5py.File(work / "val.h5", "r+") as file:
        file.attrs["validation_cases"] = [name]


def test_members_of_an_ensemble_get_one_choice(
    folds: list[tuple[Path, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models, works = ([str(path) for path in paths] for paths in zip(*folds, strict=True))
    command = ["tune", *models, "--device", "cpu", "--out", str(tmp_path / "tuned"), "--work"]
    assert main([*command, *works]) == 0
    assert "mean Dice of pancreas over 2 cases: " in capsys.readouterr().out
    both = read_bundles([tmp_path / "tuned"])
    assert len(both) == 2
    assert both[0].description.postprocessing == both[1].description.postprocessing
    assert both[0].description.temperature == both[1].description.temperature
    assert both[0].description.provenance["held_out"] != both[1].description.provenance["held_out"]
    Segmenter(both, device=torch.device("cpu"))  # they see scans alike
    assert main([*command, *works[::-1]]) == 1
    assert "has other validation cases than the model was trained without" in capsys.readouterr().err
    assert main([*command, works[0]]) == 1
    assert (
        "--work must name a folder for each bundle, in the same order, got 1 for 2" in capsys.readouterr().err
    )
    write_bundle(Path(models[1]), read_bundle(models[0]))
    assert main([*command, works[0], works[0]]) == 1
    assert re.search(r"but \w+ is a validation case of 2 of the folders", capsys.readouterr().err)
    assert len(read_bundles([tmp_path / "tuned"])) == 2  # as they were


def test_an_ensemble_is_not_written_over_what_it_is_made_of(
    folds: list[tuple[Path, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    works = [str(work) for _, work in folds]
    inside = [str(tmp_path / "all" / str(number)) for number in (0, 1)]
    for (model, _), place in zip(folds, inside, strict=True):
        shutil.copytree(model, place)
    before = [(Path(place) / "model.json").read_text() for place in inside]
    assert main(["tune", *inside, "--work", *works, "--out", str(tmp_path / "all")]) == 1
    assert "or one around it" in capsys.readouterr().err
    assert [(Path(place) / "model.json").read_text() for place in inside] == before
    (tmp_path / "other" / "0").mkdir(parents=True)
    (tmp_path / "other" / "0" / "mine.txt").touch()
    assert main(["tune", *inside, "--work", *works, "--out", str(tmp_path / "other")]) == 1
    assert "holds mine.txt, which would be lost" in capsys.readouterr().err


def test_members_that_see_scans_otherwise_are_not_tuned_together(folds: list[tuple[Path, Path]]) -> None:
    first = read_bundle(folds[0][0])
    about = read_bundle(folds[1][0])
    stitched = dataclasses.replace(about.description.stitching, blend="gaussian")
    other = dataclasses.replace(about, description=dataclasses.replace(about.description, stitching=stitched))
    with pytest.raises(InputError, match=r"must see scans alike, but 'stitching' is .* tune each by itself"):
        tune(
            [Fold(first, folds[0][1]), Fold(other, folds[1][1])],
            lambda one: Segmenter(one, device=torch.device("cpu")),
        )


def test_mirrored_views_are_tuned_as_they_are_predicted(work: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", bundle())
    records = []
    for axes in ((), ("--mirror", "yx")):
        out = tmp_path / f"tuned{len(axes)}"
        command = [
            "tune",
            str(tmp_path / "bundle"),
            "--work",
            str(work),
            "--device",
            "cpu",
            "--out",
            str(out),
        ]
        assert main([*command, *axes]) == 0
        records.append(read_bundle(out).description.provenance["tuned"])
    plain, mirrored = records
    assert plain["mirror_zyx"] == [False, False, False]
    assert mirrored["mirror_zyx"] == [False, True, True]
    assert mirrored["loss_before"] != plain["loss_before"]


def test_data_that_was_prepared_in_another_way_is_refused(work: Path) -> None:
    other = bundle(window_hu=(-150.0, 250.0))
    with pytest.raises(InputError, match=r"prepared with window_hu \(-100, 200\), but the bundle has"):
        tune_one(other, work, Says(work, certain))


def test_what_is_written_is_json_without_nan(work: Path, tmp_path: Path) -> None:
    def without_cancer(reference: Labels) -> NDArray[np.float32]:
        reference = reference.copy()
        return certain(reference * (reference == 1))

    tuned = tune_one(bundle(), work, Says(work, without_cancer))
    write_bundle(tmp_path / "tuned", tuned.apply(bundle()))
    assert (
        json.loads((tmp_path / "tuned" / "model.json").read_text())["provenance"]["tuned"]["dice"][1] == 0.0
    )


def test_the_cases_that_were_held_out_are_predicted_alone(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "bundle", tmp_path / "pred"
    write_bundle(model, bundle())
    images = tmp_path / "Task07_Pancreas" / "imagesTr"
    command = ["predict", str(images), "--model", str(model), "--held-out", str(work), "--device", "cpu"]
    assert main([*command, "--out", str(out)]) == 0
    with PatchFile(work / "val.h5") as patches:
        held_out = patches.meta.validation_cases
    assert [path.name.removesuffix(".nii.gz") for path in out.glob("*.nii.gz")] == list(held_out)
    assert len(list(images.glob("*.nii.gz"))) == 3
    assert "does not say which cases it was trained without" in capsys.readouterr().err
    provenance = {"held_out": digest_of_cases(["another"])}
    write_bundle(model, bundle(provenance=provenance))
    assert main([*command, "--out", str(tmp_path / "other")]) == 1
    assert "has other validation cases than the model was trained without" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
