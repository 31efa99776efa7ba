"""What the pages point at is there, and their examples run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

import voxelcore
from algorithm.geometry import Geometry
from tests.bundles import write_random_bundle
from tests.conftest import REPOSITORY

PAGES = sorted(
    path.relative_to(REPOSITORY) for path in [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")]
)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_relative_link_resolves(page: object) -> None:
    path = REPOSITORY / str(page)
    links = re.findall(r"\]\(([^)#]+)", path.read_text())
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert not missing
    assert len(path.read_text()) > 100


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (REPOSITORY / page).read_text(), re.DOTALL)


def test_the_readmes_example_runs() -> None:
    (example,) = examples("README.md")
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["whole"].shape == (1, *names["shape"])


def test_the_kernels_example_runs() -> None:
    first = examples("docs/VOXELCORE.md")[0]
    names: dict[str, Any] = {"np": np, "voxelcore": voxelcore}
    exec(first, names)
    assert set(np.unique(names["labels"])) <= {0, 1, 2}
    assert names["exporter"].done == names["ct"].shape[0]


def test_the_example_of_inference_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = examples("docs/INFERENCE.md")
    monkeypatch.chdir(tmp_path)
    write_random_bundle(tmp_path / "RUN" / "bundle")
    hu = np.random.default_rng(0).integers(-200, 300, (6, 20, 24)).astype(np.int16)
    image = sitk.GetImageFromArray(hu)
    sitk.WriteImage(image, "scan.nii.gz")
    names: dict[str, Any] = {"images": [image, image], "hu": hu, "geometry": Geometry.of(image)}
    exec(example, names)
    np.testing.assert_array_equal(names["array"], sitk.GetArrayFromImage(names["labels"]))
