from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from algorithm.errors import InputError
from trainer.dataset import Case, Dataset, read_label_names

DOCUMENT: dict[str, Any] = {
    "name": "Pancreas",
    "relase": "1.0",
    "tensorImageSize": "3D",
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "pancreas", "2": "cancer"},
    "numTraining": 2,
    "numTest": 1,
    "training": [
        {"image": "./imagesTr/pancreas_290.nii.gz", "label": "./labelsTr/pancreas_290.nii.gz"},
        {"image": "./imagesTr/pancreas_001.nii.gz", "label": "./labelsTr/pancreas_001.nii.gz"},
    ],
    "test": ["./imagesTs/pancreas_044.nii.gz"],
}


def make(folder: Path, **changes: Any) -> Path:
    task = folder / "Task07_Pancreas"
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (task / name).mkdir(parents=True, exist_ok=True)
    for case in ("290", "001"):
        (task / "imagesTr" / f"pancreas_{case}.nii.gz").touch()
        (task / "labelsTr" / f"pancreas_{case}.nii.gz").touch()
    (task / "imagesTs" / "pancreas_044.nii.gz").touch()
    document = {key: value for key, value in (DOCUMENT | changes).items() if value is not ...}
    (task / "dataset.json").write_text(json.dumps(document))
    return task


def test_reads_names_channels_and_paths_in_the_order_of_the_file(tmp_path: Path) -> None:
    task = make(tmp_path)
    dataset = Dataset.read(task, require=("training", "test"))
    assert dataset.folder == task
    assert dataset.name == "Pancreas"
    assert dataset.labels == ("background", "pancreas", "cancer")
    assert dataset.channels == ("CT",)
    assert dataset.training == [
        Case(
            "pancreas_290",
            task / "imagesTr" / "pancreas_290.nii.gz",
            task / "labelsTr" / "pancreas_290.nii.gz",
        ),
        Case(
            "pancreas_001",
            task / "imagesTr" / "pancreas_001.nii.gz",
            task / "labelsTr" / "pancreas_001.nii.gz",
        ),
    ]
    assert dataset.test == [task / "imagesTs" / "pancreas_044.nii.gz"]


def test_label_names_follow_their_value_not_their_place(tmp_path: Path) -> None:
    labels = {"10": "k", "2": "c", "0": "a", "1": "b", **{str(v): f"l{v}" for v in range(3, 10)}}
    dataset = Dataset.read(make(tmp_path, labels=labels, modality={"1": "T2", "0": "FLAIR"}))
    assert dataset.labels == ("a", "b", "c", "l3", "l4", "l5", "l6", "l7", "l8", "l9", "k")
    assert dataset.channels == ("FLAIR", "T2")


def test_label_names_need_no_images(tmp_path: Path) -> None:
    text = '\ufeff{"labels": {"0": "background", "1": "spleen"}}'
    (tmp_path / "dataset.json").write_text(text, encoding="utf-8")
    assert read_label_names(tmp_path) == ("background", "spleen")


def test_files_that_macos_leaves_are_ignored(tmp_path: Path) -> None:
    junk = {"image": "./imagesTr/._pancreas_290.nii.gz", "label": "./labelsTr/._pancreas_290.nii.gz"}
    task = make(
        tmp_path,
        training=[junk, *DOCUMENT["training"]],
        test=["./imagesTs/._pancreas_044.nii.gz", "./imagesTs/pancreas_044.nii.gz"],
    )
    (task / "._dataset.json").write_bytes(b"\0\5\26\7")
    dataset = Dataset.read(task)
    assert [case.name for case in dataset.training] == ["pancreas_290", "pancreas_001"]
    assert len(dataset.test) == 1


def test_linked_image_folders_are_followed(tmp_path: Path) -> None:
    task = make(tmp_path)
    (task / "imagesTr").rename(tmp_path / "elsewhere")
    (task / "imagesTr").symlink_to(tmp_path / "elsewhere")
    assert Dataset.read(task).training[0].image == task / "imagesTr" / "pancreas_290.nii.gz"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ...}, r'^"labels" is required, but missing in .*dataset\.json$'),
        ({"name": ...}, r'^"name" is required'),
        ({"modality": ...}, r'^"modality" is required'),
        ({"training": ...}, r'^"training" is required'),
        ({"test": ...}, r'^"test" is required'),
        ({"name": 7}, r'^"name" must be a text that is not empty, but is a number in '),
        ({"labels": ["background"]}, r'^"labels" must be an object from number to name.* but is a list in '),
        ({"labels": {}}, r'^"labels" must be an object .* but is empty in '),
        (
            {"labels": {"background": 0, "pancreas": 1}},
            r'^"labels" must be keyed by number.* key "background"',
        ),
        ({"labels": {"0": "a", "2": "b"}}, r'^the numbers in "labels" must be 0 to 1 .* but are 0, 2 in '),
        ({"labels": {"1": "a", "2": "b"}}, r'^the numbers in "labels" must be 0 to 1 .* but are 1, 2 in '),
        ({"labels": {"0": "a", "00": "b"}}, r'^"labels" has the number 0 twice in '),
        ({"labels": {"0": "a", "1": "a"}}, r'^"labels" has the name "a" twice in '),
        (
            {"labels": {"0": "a", "1": None}},
            r'^"labels\.1" must be a text that is not empty, but is null in ',
        ),
        (
            {"labels": {"0": "a"}},
            r'^"labels" must name 2 to 256 values, the background first, but names 1 in ',
        ),
        ({"training": {}}, r'^"training" must be a list of cases, but is an object in '),
        ({"training": [{"image": "a.nii"}]}, r'^each entry of "training" must have "image" and "label"'),
        ({"training": ["a.nii"]}, r'but one is "a\.nii" in '),
        (
            {"training": DOCUMENT["training"] * 2},
            r'^the case pancreas_290 is listed twice under "training" in ',
        ),
        ({"test": DOCUMENT["test"] * 2}, r'^the case pancreas_044 is listed twice under "test" in '),
        ({"test": [4]}, r"^an image path must be a text, but is a number in "),
        ({"test": ["../Task06_Lung/a.nii.gz"]}, r"^an image path must lie inside .* but is '\.\./Task06"),
        ({"test": ["./imagesTs/../../a.nii.gz"]}, r"^an image path must lie inside the data set folder"),
        ({"test": ["/etc/a.nii.gz"]}, r"^an image path must lie inside the data set folder"),
        ({"test": ["./imagesTs/.."]}, r"^an image path must lie inside the data set folder"),
    ],
)
def test_a_bad_description_is_refused_in_one_sentence(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    task = make(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        Dataset.read(task)
    assert str(task / "dataset.json") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"name": "Pancreas",\n oops}', r"dataset\.json is not valid JSON: .* at line 2$"),
        (b"[]", r"dataset\.json must hold a JSON object, but holds a list$"),
        (b"\xff\xfe\x00", r"dataset\.json cannot be read as JSON: "),
        (b"[" * 100_000, r"dataset\.json cannot be read as JSON: "),
    ],
)
def test_what_is_not_json_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        Dataset.read(tmp_path)


def test_missing_files_are_named_and_counted(tmp_path: Path) -> None:
    task = make(tmp_path)
    (task / "labelsTr" / "pancreas_290.nii.gz").unlink()
    with pytest.raises(InputError, match=r"labelsTr/pancreas_290\.nii\.gz is listed in .* is not there$"):
        Dataset.read(task)
    (task / "imagesTr" / "pancreas_001.nii.gz").unlink()
    with pytest.raises(InputError, match=r"is not there \(and 1 more files are missing\)$"):
        Dataset.read(task)


def test_only_the_required_files_must_be_there(tmp_path: Path) -> None:
    task = make(tmp_path)
    (task / "imagesTs" / "pancreas_044.nii.gz").unlink()
    assert len(Dataset.read(task).test) == 1
    with pytest.raises(InputError, match=r"imagesTs/pancreas_044\.nii\.gz is listed in "):
        Dataset.read(task, require=("test",))


def test_a_folder_without_a_description_gets_help(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^a data set folder was required, but .*nowhere is not a folder$"):
        Dataset.read(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no dataset\.json: give the folder of one Decathlon task"):
        Dataset.read(tmp_path)
    task = make(tmp_path)
    (tmp_path / "._Task07_Pancreas").touch()
    with pytest.raises(InputError, match=f"its sub-folder does: give {task} instead$"):
        Dataset.read(tmp_path)
    other = tmp_path / "Task09_Spleen"
    other.mkdir()
    (other / "dataset.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds 2 tasks \(Task07_Pancreas, Task09_Spleen\)"):
        Dataset.read(tmp_path)


@pytest.mark.parametrize("name", ["..nii.gz", "...nii.gz", ".nii.gz", "a\nb.nii.gz"])
def test_a_case_needs_a_name_that_can_be_a_folder(tmp_path: Path, name: str) -> None:
    task = make(tmp_path)
    document = json.loads((task / "dataset.json").read_text())
    for folder in ("imagesTr", "labelsTr"):
        (task / folder / name).write_bytes(b"")
    document["training"].append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    (task / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="a case needs a printable name"):
        Dataset.read(task)
