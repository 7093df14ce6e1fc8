"""docs/plan.md: as the laws are now."""

from tests.docs.plan import PAGE, page


def test_the_page_of_costs_is_made_from_the_laws_as_they_are() -> None:
    assert PAGE.read_text() == page(), "docs/plan.md differs from the laws: run python -m tests.docs.plan"
