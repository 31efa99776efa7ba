"""The container's entry, on evalutils: the one module that imports it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from evalutils import SegmentationAlgorithm
from evalutils.io import ImageLoader
from numpy.typing import NDArray

from algorithm.bundle import read_bundles
from algorithm.errors import InputError, printable
from algorithm.faults import out_of_memory, said_of
from algorithm.files import replacing
from algorithm.findings import count_labels
from algorithm.geometry import Geometry, same_grid
from algorithm.images import label_image, read_image, read_labels
from algorithm.job import Job, find_job, refuse_links_out, results_file
from algorithm.logs import log_to_stderr
from algorithm.segmenter import Segmenter
from algorithm.stages import Stages

log = logging.getLogger(__name__)


class ScanLoader(ImageLoader):  # type: ignore[misc] # evalutils ships no types
    """Reads a scan when its turn comes, so that many stream through one by one."""

    def __init__(self, channels: tuple[str, ...]) -> None:
        self.channels = channels

    def load_image(self, fname: Path) -> sitk.Image:
        """Read a scan; InputError says in one sentence why it cannot be."""
        return read_image(fname, self.channels)


class UNetSegmentation(SegmentationAlgorithm):  # type: ignore[misc] # evalutils ships no types
    """Segments every scan of a job; a scan that fails is recorded in results.json and the others go on.

    Label maps are written to a hidden folder, compared with their scan's grid, and only then renamed into place.
    """

    def __init__(self, segmenter: Segmenter, job: Job, input_root: Path) -> None:
        self.segmenter = segmenter
        self.loader = ScanLoader(segmenter.description.channels)
        self.job = job
        self.input_root = input_root
        self.failures: list[str] = []
        self.labels: NDArray[np.uint8] | None = None
        super().__init__(
            input_path=input_root,
            output_path=job.output_folder / ".partial",
            output_file=job.results_file,
            file_loaders={"input_image": self.loader},
            validators={},  # the job has refused equal names already; equal content is no fault
        )

    def load(self) -> None:
        """Look for no files: the job has found its scans, and evalutils finds none in a folder that is a link."""

    def process_cases(self, file_loader_key: str | None = None) -> None:  # noqa: ARG002 # of the base class
        """Segment every scan of the job, one after the other."""
        self._case_results = []
        for idx, image in enumerate(self.job.images):
            self._case_results.append(self.process_case(idx=idx, case={"path": image}))

    def predict(self, *, input_image: sitk.Image) -> sitk.Image:
        """Return uint8 labels on the grid of `input_image`."""
        labels = self.segmenter.labels(self.segmenter.voxels(input_image), self.geometry, self.stages)
        self.counts = count_labels(labels, len(self.segmenter.description.labels))
        self.labels = labels
        image = label_image(labels, self.geometry)
        self._assert_same_grid(Geometry.of(image), "made")
        return image

    def process_case(self, *, idx: int, case: Any) -> dict[str, Any]:
        """Segment, write and check one scan; a failure becomes the case's error message."""
        # Each case starts empty: nothing that an earlier job, a killed one or a failed case left passes for this one's.
        shutil.rmtree(self._output_path, ignore_errors=True)
        self.stages = Stages()
        try:
            (self.job.output_folder / self.job.name_of_result(case["path"])).unlink(missing_ok=True)
            result: dict[str, Any] = super().process_case(idx=idx, case=case)
            result["inputs"][0]["filename"] = case["path"].name
            self._publish(result["outputs"][0]["filename"])
            self.stages.since_last("write")
            self.segmenter.report(self.counts, self.geometry, self.stages)
            return {**result, "notices": self.segmenter.notices} if self.segmenter.notices else result
        except Exception as error:
            message = said_of(error, case["path"])
        finally:
            self.labels = None  # not kept while the next scan is segmented
        self.failures.append(message)
        inputs = [{"type": "metaio_image", "filename": case["path"].name}]
        return {"outputs": [], "inputs": inputs, "error_messages": [message]}

    def save(self) -> None:
        """Write results.json, complete or not at all."""
        write_results(Path(self._output_file), self._case_results)

    def _load_input_image(self, *, case: Any) -> tuple[sitk.Image, Path]:
        # The base class compares a hash with the one of an earlier read; here each scan is read once. It names the
        # label map after the path that it is given.
        refuse_links_out(case["path"], self.input_root)
        with self.stages("read"):
            image = self.loader.load_image(case["path"])
        self.geometry = Geometry.of(image)
        return image, case["path"].with_name(self.job.name_of_result(case["path"]))

    def _publish(self, name: str) -> None:
        """Move what was written into the output folder, once it was read back and found the same."""
        voxels, geometry = read_labels(self._output_path / name)
        self._assert_same_grid(geometry, "written")
        if self.labels is None or not np.array_equal(voxels, self.labels):
            raise RuntimeError(
                "the label map was written with other labels than were found; is the disk full?"
            )
        for file in self._output_path.iterdir():  # an .mhd has its voxels in a second file
            file.replace(self.job.output_folder / file.name)

    def _assert_same_grid(self, geometry: Geometry, done: str) -> None:
        if difference := same_grid(self.geometry, geometry):
            raise RuntimeError(f"the label map as {done} does not lie on its scan's grid: {difference}")


def write_results(file: Path, cases: list[dict[str, Any]]) -> None:
    """Write results.json as the platform reads it."""
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(cases, indent=2) + "\n")


@log_to_stderr()
def main(environment: Mapping[str, str] = os.environ) -> int:
    """Run one job; return 0 when every scan was segmented, else 1 with the reason as stderr's last line."""
    with suppress(
        OSError
    ):  # should this job be killed, the results of an earlier one must not pass for its own
        results_file(environment).unlink(missing_ok=True)
    try:
        failures = _run(environment)
    except InputError as error:
        failures = [str(error)]
        _record_failure(environment, failures)
    except OSError as error:
        log.debug("the job failed", exc_info=True)
        failures = [_said(error, results_file(environment).parent)]
        _record_failure(environment, failures)
    except Exception as error:
        if out_of_memory(error):
            log.debug("the job failed", exc_info=True)
            failures = ["memory ran out before the first scan; ask for a machine with more"]
        else:
            log.exception("the job failed")
            failures = [f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"]
        _record_failure(environment, failures)
    for failure in failures:
        sys.stderr.write(f"algorithm: {failure}\n")
    return 1 if failures else 0


def _said(error: OSError, otherwise: Path) -> str:
    """Return a sentence with the file's name, such as "/input/images: permission denied"."""
    return printable(f"{error.filename or otherwise}: {(error.strerror or str(error)).lower()}")


def _record_failure(environment: Mapping[str, str], failures: list[str]) -> None:
    # An output folder that cannot be written to must not hide the first reason.
    with suppress(OSError):
        write_results(results_file(environment), [{"outputs": [], "inputs": [], "error_messages": failures}])


def _run(environment: Mapping[str, str]) -> list[str]:
    job = find_job(environment)
    if torch.version.cuda and not torch.cuda.is_available():
        log.warning(
            "no GPU is found, though this build of PyTorch is made for CUDA %s: the CPU is used, which takes minutes a "
            "scan; does the job ask for a GPU, and is the driver new enough?",
            torch.version.cuda,
        )
    segmenter = Segmenter(read_bundles([job.model]))
    job.output_folder.mkdir(parents=True, exist_ok=True)
    algorithm = UNetSegmentation(segmenter, job, Path(environment.get("DECATHLON_INPUT", "/input")))
    try:
        algorithm.process()
    finally:
        shutil.rmtree(job.output_folder / ".partial", ignore_errors=True)
    return algorithm.failures
