"""Memory that runs out and GPUs that fail, put in the place of the network's own call."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

import algorithm.entry
import algorithm.segmenter
from algorithm.bundle import read_bundle
from algorithm.errors import InputError
from algorithm.faults import broken_gpu, out_of_memory
from algorithm.network import UNet3D
from algorithm.predict import predict
from algorithm.segmenter import Segmenter
from tests.bundles import coarse_to_fine_bundle, random_bundle, write_random_bundle

CPU, GPU = torch.device("cpu"), torch.device("cpu", 0)  # the latter passes for a GPU
NO_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1 GiB"
FAILED = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be …"


def scan(seed: int = 0) -> sitk.Image:
    values = np.random.default_rng(seed).integers(-200, 300, (12, 40, 44)).astype(np.int16)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((2.0, 2.0, 5.0))
    return image


class Gpu:
    """Makes a device pass for a GPU: networks that were copied lie on it, and `fault` may raise before they run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fault: Callable[[int], None] = lambda _: None
        self.batches: list[int] = []  # that it was given
        self.works = True
        monkeypatch.setattr(algorithm.segmenter, "_is_gpu", lambda device: device == GPU)
        monkeypatch.setattr(algorithm.segmenter, "default_device", lambda: GPU)
        monkeypatch.setattr(algorithm.segmenter, "has_bfloat16", lambda _: False)
        copies: set[int] = set()
        deepcopy, forward, ones = algorithm.segmenter.copy.deepcopy, UNet3D.forward, torch.ones

        def noted(network: UNet3D) -> UNet3D:
            copied = deepcopy(network)
            copies.add(id(copied))
            return copied

        def run(network: UNet3D, x: torch.Tensor) -> torch.Tensor:
            if id(network) in copies:
                self.batches.append(len(x))
                self.fault(len(x))
            return forward(network, x)

        def probe(*arguments: object, **options: object) -> torch.Tensor:
            if not self.works:
                raise torch.AcceleratorError(FAILED)
            return ones(*arguments, **options)  # type: ignore[call-overload, no-any-return]

        monkeypatch.setattr(algorithm.segmenter.copy, "deepcopy", noted)
        monkeypatch.setattr(UNet3D, "forward", run)
        monkeypatch.setattr(torch, "ones", probe)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    yield Gpu(monkeypatch)
    monkeypatch.undo()


def room_for(most: int) -> Callable[[int], None]:
    def fault(patches: int) -> None:
        if patches > most:
            raise torch.OutOfMemoryError(NO_MEMORY)

    return fault


def voxels(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def test_out_of_memory_falls_back_to_smaller_batches_and_says_so(
    gpu: Gpu, caplog: pytest.LogCaptureFixture
) -> None:
    expected = voxels(Segmenter(random_bundle(), device=GPU, patches_at_once=8).segment(scan()))
    segmenter = Segmenter(random_bundle(), device=GPU, patches_at_once=8)
    gpu.fault = room_for(3)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(voxels(segmenter.segment(scan())), expected)
    first = caplog.messages[0]
    assert (
        "patches at once need more memory than cpu:0 has (CUDA out of memory. Tried to allocate 2.00" in first
    )
    assert "from now on" in first
    gpu.batches.clear()
    np.testing.assert_array_equal(voxels(segmenter.segment(scan())), expected)
    assert max(gpu.batches) <= 3  # it is not tried again with what was too much


def test_where_one_patch_is_too_much_the_cpu_goes_on_and_the_next_scan_tries_the_gpu_again(
    gpu: Gpu, caplog: pytest.LogCaptureFixture
) -> None:
    segmenter = Segmenter(random_bundle(), device=GPU, patches_at_once=2, mirror_zyx=(False, True, False))
    expected = voxels(segmenter.segment(scan()))
    gpu.fault = room_for(0)
    with caplog.at_level(logging.INFO):
        np.testing.assert_array_equal(voxels(segmenter.segment(scan())), expected)
    assert any("a patch needs more memory than cpu:0 has" in message for message in caplog.messages)
    assert any("the CPU goes on with this scan" in message for message in caplog.messages)
    assert "on cpu, in place of cpu" in caplog.messages[-1]
    gpu.fault = room_for(8)
    gpu.batches.clear()
    np.testing.assert_array_equal(voxels(segmenter.segment(scan())), expected)
    assert gpu.batches


def test_memory_may_run_out_in_the_middle_of_a_scan_and_of_a_coarse_pass(gpu: Gpu) -> None:
    expected = voxels(Segmenter(coarse_to_fine_bundle(), device=GPU, patches_at_once=4).segment(scan()))
    calls = len(gpu.batches)
    for good in range(0, calls, -(-calls // 4)):
        left = iter(range(good))

        def fault(_: int, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise torch.OutOfMemoryError(NO_MEMORY)

        segmenter = Segmenter(coarse_to_fine_bundle(), device=GPU, patches_at_once=4)
        gpu.fault = fault
        np.testing.assert_array_equal(voxels(segmenter.segment(scan())), expected)


def test_without_a_copy_on_the_cpu_the_error_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory: you …"
        )

    segmenter = Segmenter(random_bundle(), device=CPU, patches_at_once=4)
    monkeypatch.setattr(UNet3D, "forward", full)
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        segmenter.segment(scan())
    assert segmenter._at_once == 1


def test_a_model_that_does_not_fit_runs_on_the_cpu(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_: object) -> None:
        raise torch.OutOfMemoryError(NO_MEMORY)

    monkeypatch.setattr(algorithm.segmenter.copy, "deepcopy", full)
    with caplog.at_level(logging.WARNING):
        segmenter = Segmenter(random_bundle(), device=GPU)
    assert "the model does not fit into the free memory of cpu:0" in caplog.text
    segmenter.segment(scan())
    assert gpu.batches == []


def scans(folder: Path) -> Path:
    folder.mkdir()
    for number in range(3):
        sitk.WriteImage(scan(number), str(folder / f"case_{number}.mha"))
    return folder


@pytest.mark.parametrize("works", [True, False])
def test_a_gpu_that_fails_ends_the_case_and_not_the_folder(
    gpu: Gpu, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, works: bool
) -> None:
    source, model = scans(tmp_path / "scans"), write_random_bundle(tmp_path / "model")
    expected = predict(source, model, tmp_path / "expected", device=GPU)
    per_scan = len(gpu.batches) // 3
    given = iter(range(per_scan + 2))

    def fault(_: int) -> None:
        if next(given, None) == per_scan + 1:
            gpu.works = works
            raise torch.AcceleratorError(FAILED)
        if not gpu.works:
            raise torch.AcceleratorError(FAILED)

    gpu.fault = fault
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(
            InputError,
            match=r"1 of 3 scans failed, the first: .*case_1\.mha: the GPU failed \(CUDA error: an illegal memory "
            r"access was encountered\); the same command tries it again",
        ),
    ):
        predict(source, model, tmp_path / "out", device=GPU)
    done = sorted(path.name for path in (tmp_path / "out").glob("*.mha"))
    assert done == ["case_0.mha", "case_2.mha"]
    assert ("does not work any more in this process" in caplog.text) == (not works)
    assert "Traceback" not in caplog.text
    gpu.works, gpu.fault = True, lambda _: None
    again = predict(source, model, tmp_path / "out", device=GPU)
    for one, other in zip(expected, again, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_gpu_that_fails_in_a_container_ends_the_case(
    gpu: Gpu, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {
        "DECATHLON_INPUT": str(scans(tmp_path / "scans")),
        "DECATHLON_OUTPUT": str(tmp_path / "out"),
        "DECATHLON_MODEL": str(write_random_bundle(tmp_path / "model")),
    }

    def fault(_: int) -> None:
        gpu.works = False
        raise torch.AcceleratorError(FAILED)

    gpu.fault = fault
    assert algorithm.entry.main(environment) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"algorithm: {tmp_path / 'scans' / 'case_0.mha'}: the GPU failed (CUDA error: an")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [len(result["error_messages"]) for result in results] == [1, 0, 0]
    assert len(list((tmp_path / "out" / "images").glob("*.mha"))) == 2


def test_networks_on_the_cpu_stay_the_callers(gpu: Gpu, tmp_path: Path) -> None:
    bundle = read_bundle(write_random_bundle(tmp_path / "model"))
    segmenter = Segmenter(bundle, device=GPU)
    assert gpu.works
    assert segmenter.members[0].network is not bundle.network


@pytest.mark.parametrize(
    ("error", "memory", "gpu"),
    [
        (MemoryError(), True, False),
        (OSError(12, "Cannot allocate memory"), True, False),
        (OSError(28, "No space left on device"), False, False),
        (torch.OutOfMemoryError(NO_MEMORY), True, False),
        (RuntimeError("CUDA error: out of memory"), True, False),
        (RuntimeError(FAILED), False, True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False, True),
        (RuntimeError("std::bad_alloc"), True, False),
        (ValueError("a shape"), False, False),
    ],
)
def test_whose_fault_it_is(error: Exception, *, memory: bool, gpu: bool) -> None:
    assert (out_of_memory(error), broken_gpu(error)) == (memory, gpu)
