from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch

from algorithm import engines, segmenter
from algorithm.engines import Member, with_openvino, with_torch
from algorithm.errors import InputError
from algorithm.geometry import Geometry
from algorithm.network import to_channels_last
from algorithm.precision import has_bfloat16
from algorithm.segmenter import Segmenter
from tests.bundles import random_bundle

CPU = torch.device("cpu")
PATCH = (1, 1, 16, 32, 32)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def member() -> Member:
    about = random_bundle(mean=(10.0,), std=(50.0,))
    to_channels_last(about.network)
    return Member(about.network, random_bundle().description, about.description).eval()


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("patches", [1, 2, 3])
def test_openvino_says_what_pytorch_says(patches: int) -> None:
    one = member()
    reference = with_torch(one, CPU, torch.float32)
    converted = with_openvino(one, (3, *PATCH[1:]), torch.float32, reference)
    assert converted is not reference
    batch = noise(patches, *PATCH[1:])
    with torch.inference_mode():
        expected, found = reference(batch), converted(batch)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert float(expected.std()) > 0.05, "the probabilities vary, so agreement says something"


@pytest.mark.skipif(not has_bfloat16(CPU), reason="needs a processor that computes in bfloat16")
def test_openvino_in_bfloat16_stays_near() -> None:
    one = member()
    exact = with_torch(one, CPU, torch.float32)
    rounded = with_openvino(one, PATCH, torch.bfloat16, with_torch(one, CPU, torch.bfloat16))
    with torch.inference_mode():
        expected, found = exact(noise(*PATCH)), rounded(noise(*PATCH))
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.05


def test_where_they_disagree_pytorch_computes(caplog: pytest.LogCaptureFixture) -> None:
    def other(patches: torch.Tensor) -> torch.Tensor:
        return torch.full((len(patches), 3, *PATCH[2:]), 1 / 3)

    with caplog.at_level(logging.WARNING):
        assert with_openvino(member(), PATCH, torch.float32, other) is other
    assert "OpenVINO disagrees with PyTorch" in caplog.text


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_rare_class_that_is_wrong_is_noticed(precision: torch.dtype) -> None:
    one = member()
    right = with_torch(one, CPU, torch.float32)
    broken = member()
    with torch.no_grad():
        broken.network.head.weight[2] = 0
    reference = with_torch(broken, CPU, torch.float32)
    assert with_openvino(one, PATCH, precision, reference) is reference
    if precision == torch.float32 or has_bfloat16(CPU):
        assert with_openvino(one, PATCH, precision, right) is not right


def test_the_segmenter_takes_openvino_for_large_scans_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(30, 80, (40, 60, 60)).astype(np.int16)
    geometry = Geometry(values.shape, (2.5, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
    plain = Segmenter(random_bundle(), device=CPU, engine="torch").labels(values, geometry)
    auto = Segmenter(random_bundle(), device=CPU)
    np.testing.assert_array_equal(auto.labels(values, geometry), plain)
    assert auto._converted == []
    monkeypatch.setattr(segmenter, "WORTH_CONVERTING", 1)
    converted = auto.labels(values, geometry)
    assert len(auto._converted) == 1
    assert auto._converted[0] is not auto.engines[0]
    asked = Segmenter(random_bundle(), device=CPU, engine="openvino").labels(values, geometry)
    np.testing.assert_array_equal(asked, converted)
    assert np.count_nonzero(converted != plain) <= 1e-3 * plain.size
    monkeypatch.setattr(segmenter, "openvino_installed", lambda: False)
    np.testing.assert_array_equal(auto.labels(values, geometry), plain)


def test_openvino_that_is_not_there_is_asked_for_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "openvino_installed", lambda: False)
    with pytest.raises(
        InputError, match=r"OpenVINO is not installed; pip install 'decathlon-unet\[openvino\]'"
    ):
        Segmenter(random_bundle(), device=CPU, engine="openvino")


def test_nothing_is_reported_to_anybody() -> None:
    """OpenVINO's import would send an event to its makers."""
    script = """
import sys, torch
from algorithm.segmenter import Segmenter
from tests.bundles import random_bundle
Segmenter(random_bundle(), device=torch.device("cpu"), engine="openvino")
there = [name for name, module in sys.modules.items() if module is not None]
print(sorted({name.partition(".")[0] for name in there if name.startswith("openvino")}))
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "['openvino']\n", "openvino_telemetry was imported, or OpenVINO was not"
