"""What the pages point at is there."""

from __future__ import annotations

import re

import pytest

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
