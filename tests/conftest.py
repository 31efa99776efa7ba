"""Fixtures that every room shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real CTs; skip where a user lacks them, fail under CI."""
    folder = Path(os.environ.get("DECATHLON_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    if (folder / "abdomen_crlm_1004" / "ct.nii.gz").is_file():
        return folder
    message = (
        f"real CTs are not at {folder}; set DECATHLON_REAL_DATA to the folder that holds abdomen_crlm_1004"
    )
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
