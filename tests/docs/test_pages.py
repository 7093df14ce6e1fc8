"""README, CONTRIBUTING, CHANGELOG and docs: what they point at is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#][^)#]*)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_every_heading_that_the_reference_links_to_is_there() -> None:
    text = (ROOT / "docs" / "reference" / "api.md").read_text()
    headings = {heading.lower() for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) - headings == set()


def test_every_file_that_contributing_says_to_touch_is_there() -> None:
    paths = re.findall(r"`([a-z_]+(?:/[a-z_.]+)+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []
