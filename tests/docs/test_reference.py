"""docs/reference: as the code is now."""

from tests.docs.reference import FOLDER, pages


def test_the_reference_is_made_from_the_code_as_it_is() -> None:
    stale = [name for name, text in pages().items() if (FOLDER / name).read_text() != text]
    assert not stale, f"{stale} differ from the code: run python -m tests.docs.reference"


def test_the_reference_names_every_command_and_every_question() -> None:
    made = pages()
    for command in ("index", "top", "explain", "neighbors", "serve", "optimise"):
        assert f"\n## {command}\n" in made["commands.md"]
    assert "### top\n" in made["python.md"]
    assert "/patches`" in made["api.md"]
