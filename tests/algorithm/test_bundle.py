from __future__ import annotations

import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from algorithm.bundle import Bundle, Description, read_bundle, write_bundle
from algorithm.errors import InputError
from algorithm.network import UNet3D
from tests.bundles import coarse_to_fine_bundle, random_bundle, write_random_bundle

ADDED_LATER = {
    "notice",
    "bfloat16",
    "temperature",
    "coarse_to_fine",
    "normalisation",
}  # older bundles are read without them


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_random_bundle(tmp_path / "bundle")


def test_what_is_written_is_read_back(folder: Path) -> None:
    bundle, expected = read_bundle(folder), random_bundle()
    assert bundle.description == expected.description
    assert not bundle.network.training
    for name, tensor in expected.network.state_dict().items():
        assert torch.equal(bundle.network.state_dict()[name], tensor), name
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]


def test_tied_weights_survive(tmp_path: Path) -> None:
    plain = random_bundle()
    network = UNet3D(**{**plain.network.arguments, "tie_context_convs": True})
    values = {**vars(plain.description), "network": network.arguments}
    write_bundle(tmp_path / "tied", Bundle(network, Description(**values)))
    image = torch.randn(1, 1, 16, 16, 16)
    network.eval()
    assert torch.equal(read_bundle(tmp_path / "tied").network(image), network(image))


def test_a_tarball_is_read_without_extracting(folder: Path, tmp_path: Path) -> None:
    tarball = tmp_path / "model.tar.gz"
    with tarfile.open(tarball, "w:gz") as archive:
        archive.add(folder, arcname="bundle")
    assert read_bundle(tarball).description == random_bundle().description
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "model.tar.gz"]


def test_a_bundle_of_an_earlier_release_is_read(folder: Path) -> None:
    edit(folder, lambda values: [values.pop(key) for key in ADDED_LATER])
    assert read_bundle(folder).description == random_bundle().description


def test_a_coarse_pass_travels_with_its_bundle(tmp_path: Path) -> None:
    bundle = coarse_to_fine_bundle()
    write_bundle(tmp_path / "bundle", bundle)
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "bundle", arcname=".")
    for path in (tmp_path / "bundle", tmp_path / "model.tar.gz"):
        found = read_bundle(path)
        assert found.description == bundle.description
        assert found.coarse is not None
        assert bundle.coarse is not None
        assert found.coarse.description == bundle.coarse.description
    (tmp_path / "bundle" / "coarse.safetensors").unlink()
    with pytest.raises(InputError, match=r"lacks coarse\.safetensors"):
        read_bundle(tmp_path / "bundle")


def test_a_coarse_pass_sees_the_same_channels(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    write_bundle(folder, coarse_to_fine_bundle())
    coarse = json.loads((folder / "coarse.json").read_text())
    (folder / "coarse.json").write_text(json.dumps({**coarse, "channels": ["T2"]}))
    with pytest.raises(InputError, match=r"coarse\.json: the coarse pass sees T2, but the network sees CT"):
        read_bundle(folder)


@pytest.mark.parametrize("key", sorted(vars(random_bundle().description).keys() - ADDED_LATER))
def test_a_missing_key_is_named(folder: Path, key: str) -> None:
    edit(folder, lambda values: values.pop(key))
    with pytest.raises(InputError, match=rf"model\.json lacks the key '{key}'"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacing_zyx_mm": [1, 2]}, "'spacing_zyx_mm' must be three numbers in mm"),
        ({"spacing_zyx_mm": [1, 2, 0]}, "'spacing_zyx_mm' must be three numbers from 0.1 to 100 mm"),
        ({"mean": [1e300]}, "'mean' must be a number for each channel"),
        ({"std": [1e-320]}, "'std' must be a positive number for each channel"),
        ({"window_hu": [-1e300, 1e300]}, "'window_hu' must be two rising numbers"),
        ({"patch_shape_zyx": [1024, 1024, 1024]}, "together at most 33554432 voxels"),
        ({"network": {**random_bundle().description.network, "base_filters": 1_000_000}}, "has shape"),
        (
            {"network": {**random_bundle().description.network, "num_classes": 10**30}},
            "does not describe a U-Net",
        ),
        ({"window_hu": [200, -100]}, "'window_hu' must be two rising numbers"),
        ({"std": [0]}, "'std' must be a positive number for each channel"),
        ({"mean": [0, 0]}, "'mean' must be a number for each channel"),
        ({"labels": ["background", "pancreas"]}, "1 channels and 3 classes, but 1 channels and 2 labels"),
        ({"patch_shape_zyx": [16, 32, 33]}, "'patch_shape_zyx' must have sizes that 4 divides"),
        (
            {"patch_shape_zyx": [4, 4, 4], "stitching": {"blend": "centre", "overlap_zyx": [0, 0, 0]}},
            "'patch_shape_zyx' must have one size >= 8",
        ),
        ({"orientation": "RAS"}, "'orientation' must be 'LPS'"),
        ({"format_version": 4}, "format version 4, this software reads 1 to 3"),
        ({"format_version": True}, "'format_version' must be"),
        ({"network": {"in_channels": 1}}, "'network' does not describe a U-Net"),
        ({"network": {**random_bundle().description.network, "depth": 4}}, "lacks the tensor"),
        ({"network": {**random_bundle().description.network, "base_filters": 4}}, "has shape"),
        (
            {"stitching": {"blend": "mean", "overlap_zyx": [0, 0, 0]}},
            "'stitching' must be 'centre' or 'gaussian'",
        ),
        ({"postprocessing": {"largest": True}}, "'postprocessing' has 'largest'"),
        (
            {"postprocessing": {"smallest_lesion_ml": -1}},
            "'postprocessing.smallest_lesion_ml' must be from 0 to 1000 ml",
        ),
        ({"coarse_to_fine": {"margin": 3}}, "'coarse_to_fine' has 'margin'"),
        ({"coarse_to_fine": {"margin_mm": -3}}, "'coarse_to_fine.margin_mm' must be from 0 to 1000 mm"),
        ({"coarse_to_fine": {}}, r"lacks coarse\.json"),
        ({"temperature": 0}, "'temperature' must be a number from 0.05 to 20"),
        ({"temperature": "warm"}, "'temperature' must be a number from 0.05 to 20"),
    ],
)
def test_wrong_values_are_refused_by_name(folder: Path, change: dict[str, Any], message: str) -> None:
    edit(folder, lambda values: values.update(change))
    with pytest.raises(InputError, match=message) as caught:
        read_bundle(folder)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_random_bundle(tmp_path / "bundle")
    (folder / "model.safetensors").unlink()
    (folder / "model.pt").write_bytes(pickle.dumps({}))
    with pytest.raises(InputError, match=r"model\.pt is a pickle, which can run code"):
        read_bundle(folder)
    with pytest.raises(InputError, match="is a pickle"):
        read_bundle(folder / "model.pt")


def test_weights_that_are_not_safetensors_or_not_finite_are_refused(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["head.weight"][0] = float("nan")
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"'head\.weight' holds values that are not finite"):
        read_bundle(folder)
    (folder / "model.safetensors").write_bytes(b"no tensors here")
    with pytest.raises(InputError, match="not a valid safetensors file"):
        read_bundle(folder)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_bundle(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"lacks model\.json"):
        read_bundle(tmp_path / "empty")
    (tmp_path / "no.tar").write_text("no tarball")
    with pytest.raises(InputError, match="not a readable tarball"):
        read_bundle(tmp_path / "no.tar")


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((folder / "model.json").read_text())
    change(values)
    (folder / "model.json").write_text(json.dumps(values))


def test_a_damaged_tarball_is_refused(folder: Path, tmp_path: Path) -> None:
    tarball = tmp_path / "model.tar.gz"
    with tarfile.open(tarball, "w:gz") as archive:
        archive.add(folder, arcname="bundle")
    content = bytearray(tarball.read_bytes())
    content[-6] ^= 1  # in the checksum
    tarball.write_bytes(content)
    with pytest.raises(InputError, match="not a readable tarball"):
        read_bundle(tarball)


def test_anyone_may_read_a_bundle(folder: Path) -> None:
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.iterdir())


def test_a_folder_with_other_things_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    write_bundle(folder, random_bundle())
    (folder / "notes.txt").write_text("keep")
    with pytest.raises(InputError, match=r"holds notes\.txt, which would be lost; choose a new folder"):
        write_bundle(folder, random_bundle())
    with pytest.raises(InputError, match="holds bundle, which would be lost"):
        write_bundle(tmp_path, random_bundle())
    assert (folder / "notes.txt").read_text() == "keep"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file, and a folder is to be written"):
        write_bundle(tmp_path / "file", random_bundle())


def test_a_path_may_be_text(folder: Path) -> None:
    assert read_bundle(str(folder)).description == random_bundle().description


def test_a_coarse_pass_has_none_itself(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", coarse_to_fine_bundle())
    file = tmp_path / "bundle" / "coarse.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "coarse_to_fine": {}}))
    with pytest.raises(InputError, match="'coarse_to_fine' must be absent"):
        read_bundle(tmp_path / "bundle")
