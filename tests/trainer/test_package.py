from __future__ import annotations

import dataclasses
import gzip
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from algorithm.bundle import read_bundle, write_bundle
from algorithm.locate import CoarseToFine
from algorithm.segmenter import Segmenter
from tests.bundles import coarse_to_fine_bundle, random_bundle, write_random_bundle
from trainer import onnx_export
from trainer.cli import main


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_random_bundle(tmp_path / "bundle")


def package(*arguments: object) -> int:
    return main(["package", *map(str, arguments)])


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert package(*arguments) == 1
    return capsys.readouterr().err.splitlines()[-1]


def test_a_tarball_is_the_bundle_and_always_the_same(bundle: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "model.tar.gz", tmp_path / "again.tgz"
    assert package(bundle, "--out", one) == 0
    assert package(one, "--out", other) == 0
    assert read_bundle(one).description == random_bundle().description
    assert gzip.decompress(one.read_bytes()) == gzip.decompress(other.read_bytes())


def test_weights_in_float16_have_half_the_bytes_and_a_notice_stays(bundle: Path, tmp_path: Path) -> None:
    for out in (tmp_path / "half", tmp_path / "half.tar.gz"):
        assert package(bundle, "--float16", "--notice", "Synthetic.", "--out", out) == 0
        half = read_bundle(out)
        assert half.description == dataclasses.replace(random_bundle().description, notice="Synthetic.")
        for name, exact in random_bundle().network.state_dict().items():
            found = half.network.state_dict()[name]
            assert found.dtype == torch.float32
            assert torch.equal(found, exact.half().float()), name
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (bundle, tmp_path / "half")]
    assert sizes[1] < 0.6 * sizes[0]


def test_a_notice_of_two_lines_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, bundle, "--notice", "two\nlines", "--out", tmp_path / "out")
    assert said == "decathlon package: --notice must be 1 to 300 characters on one line"
    assert not (tmp_path / "out").exists()


def test_a_notice_cannot_be_taken_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noticed = write_random_bundle(tmp_path / "noticed", notice="Synthetic.")
    assert json.loads((noticed / "model.json").read_text())["format_version"] == 3
    said = refusal(capsys, noticed, "--notice", "Fine.", "--out", tmp_path / "out")
    assert said.endswith("has a notice, which stays with it (Synthetic.); leave out --notice")
    plain = write_random_bundle(tmp_path / "plain", spacing_zyx_mm=(2.5, 1.0, 1.0))
    assert package(plain, "--coarse", noticed, "--out", tmp_path / "both") == 0
    assert Segmenter(read_bundle(tmp_path / "both")).notices == ["Synthetic."]


def test_weights_that_float16_cannot_hold_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = random_bundle()
    with torch.no_grad():
        next(large.network.parameters()).fill_(1e6)
    write_bundle(tmp_path / "large", large)
    said = refusal(capsys, tmp_path / "large", "--float16", "--out", tmp_path / "out")
    assert "a weight is not finite in torch.float16, so no bundle is written" in said
    assert not (tmp_path / "out").exists()


def test_a_coarse_pass_is_added(bundle: Path, tmp_path: Path) -> None:
    coarse = write_random_bundle(tmp_path / "coarse", spacing_zyx_mm=(10.0, 4.0, 4.0))
    out = tmp_path / "both.tar.gz"
    assert package(bundle, "--coarse", coarse, "--margin-mm", 12, "--out", out) == 0
    both = read_bundle(out)
    assert both.description.coarse_to_fine == CoarseToFine(margin_mm=12.0)
    assert both.coarse is not None
    assert both.coarse.description.spacing_zyx_mm == (10.0, 4.0, 4.0)


def test_what_is_no_coarse_pass_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "two", coarse_to_fine_bundle())
    mr = write_random_bundle(tmp_path / "mr", channels=("T2",))
    out = tmp_path / "out"
    said = refusal(capsys, bundle, "--coarse", tmp_path / "two", "--out", out)
    assert said.endswith("the coarse pass must be a bundle without a coarse pass of its own")
    said = refusal(capsys, bundle, "--coarse", mr, "--out", out)
    assert said.endswith("the coarse pass must see CT, but was trained on T2")
    said = refusal(capsys, bundle, "--coarse", bundle, "--out", out)
    assert "the coarse pass must have larger voxels than (5.0, 2.0, 2.0) mm" in said
    said = refusal(capsys, bundle, "--margin-mm", "20", "--out", out)
    assert said.endswith("--margin-mm is for a coarse pass; give one with --coarse")
    said = refusal(capsys, bundle, "--out", tmp_path)
    assert "would be lost" in said
    said = refusal(capsys, bundle, "--format", "onnx", "--out", tmp_path)
    assert "would be lost" in said
    assert read_bundle(bundle).description == random_bundle().description
    said = refusal(capsys, bundle, "--coarse", bundle, "--margin-mm", "-1", "--out", out)
    assert said.endswith("margin_mm must be from 0 to 1000 mm, got -1")
    said = refusal(capsys, bundle, "--out", bundle)
    assert "--out must be another place than the bundle itself" in said
    assert not out.exists()


def test_onnx_runtime_computes_the_same(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "onnx"
    assert package(bundle, "--format", "onnx", "--out", out) == 0
    assert "of PyTorch's logits" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["model.json", "model.onnx"]
    onnx.checker.check_model(out / "model.onnx")
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    patches = np.random.default_rng(0).normal(0, 1, (3, 1, 16, 32, 32)).astype(np.float32)
    (found,) = session.run(["logits"], {"patches": patches})
    with torch.inference_mode():
        expected = random_bundle().network(torch.from_numpy(patches)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    (prop,) = onnx.load(out / "model.onnx").metadata_props
    assert prop.key == "decathlon-unet"
    assert json.loads(prop.value) == json.loads((out / "model.json").read_text())


def test_a_wrong_export_is_not_written(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx_export, "AGREEMENT", 0.0)
    assert "from PyTorch" in refusal(capsys, bundle, "--format", "onnx", "--out", tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_onnx_says_what_it_needs(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "onnx"
    write_bundle(tmp_path / "two", coarse_to_fine_bundle())
    assert "is two networks" in refusal(capsys, tmp_path / "two", "--format", "onnx", "--out", out)
    assert "leave out the suffix" in refusal(
        capsys, bundle, "--format", "onnx", "--out", tmp_path / "a.tar.gz"
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    said = refusal(capsys, bundle, "--format", "onnx", "--out", out)
    assert said.endswith("onnxruntime is not installed; pip install 'decathlon-unet[onnx]'")
    assert not out.exists()
