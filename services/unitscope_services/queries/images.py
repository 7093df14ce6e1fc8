"""The images of a corpus, and its files that are no usable image, page by page."""

from unitscope_schemas import cursors
from unitscope_schemas.answers.served import ImagePage, SkippedPage
from unitscope_schemas.questions import ImagesQuestion, SkippedQuestion
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.image_filter import ImageFilter


def image_page(atlas: Atlas, question: ImagesQuestion) -> ImagePage:
    """Return a page of the images that pass, in order of their ids, or the image with a given path.

    Raises NotFoundError for a path that the corpus does not have.
    """
    if question.path is not None:
        return ImagePage(rows=[atlas.image_row(atlas.image_by_path(question.path))], next=None)
    passing = ImageFilter(question.label, question.where, question.conflicts, question.duplicates)
    size = question.k or atlas.catalogue.count
    subject = f"{atlas.version} images {passing}"
    after = cursors.decode(question.cursor, subject, range(atlas.manifest.stored_count))
    rows = atlas.image_list(passing, after, size + 1)
    following = cursors.encode(rows[size - 1].image, subject) if len(rows) > size else None
    return ImagePage(rows=[atlas.image_row(row) for row in rows[:size]], next=following)


def skipped_page(atlas: Atlas, question: SkippedQuestion) -> SkippedPage:
    """Return a page of the files that are no usable image, in order of their paths."""
    rows, following = cursors.page(atlas.skipped, f"{atlas.version} skipped", question.k, question.cursor)
    return SkippedPage(rows=rows, next=following)
