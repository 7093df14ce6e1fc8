"""The questions of a notebook or program, with arguments as the models of `unitscope_schemas.questions` have them.

`Questions` is what an opened atlas and a client of a server have in common.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

import pyarrow as pa

from unitscope.arguments import names_checked
from unitscope_schemas import questions
from unitscope_schemas.errors import UsageError
from unitscope_schemas.question import Question, check_names

Arguments = ParamSpec("Arguments")
Asked = TypeVar("Asked", bound=Question)
Subject = TypeVar("Subject")
Answer = TypeVar("Answer")


def asks_about(
    model: Callable[Arguments, Asked],
) -> Callable[[Callable[[Subject, str, Asked], Answer]], Callable[Concatenate[Subject, str, Arguments], Answer]]:
    """Turn a method that takes a subject and a question into one that takes the question's fields as arguments.

    Type checkers and editors see every field with its type; an unknown name raises UsageError with the nearest one.
    """

    def spell_out(
        method: Callable[[Subject, str, Asked], Answer],
    ) -> Callable[Concatenate[Subject, str, Arguments], Answer]:
        subject = list(inspect.signature(method).parameters)[1]

        @functools.wraps(method)
        def ask(self: Subject, about: str = "", /, *args: Arguments.args, **fields: Arguments.kwargs) -> Answer:
            about = about or cast(str, fields.pop(subject, ""))
            if not about:
                check_names(fields, [subject, *inspect.signature(model).parameters])
            if not (isinstance(about, str) and about):
                given = f"{about!r} is no text" if about else "none is given"
                raise UsageError(f"{method.__name__} asks about one {subject}; {given}")
            _by_name_alone(method.__name__, args)
            return method(self, about, model(*args, **fields))

        _spell_signature(ask, method, model)
        return ask

    return spell_out


def asks(
    model: Callable[Arguments, Asked],
) -> Callable[[Callable[[Subject, Asked], Answer]], Callable[Concatenate[Subject, Arguments], Answer]]:
    """Turn a method that takes a question into one that takes its fields as arguments, as `asks_about` does."""

    def spell_out(method: Callable[[Subject, Asked], Answer]) -> Callable[Concatenate[Subject, Arguments], Answer]:
        @functools.wraps(method)
        def ask(self: Subject, /, *args: Arguments.args, **fields: Arguments.kwargs) -> Answer:
            _by_name_alone(method.__name__, args)
            return method(self, model(*args, **fields))

        _spell_signature(ask, method, model)
        return ask

    return spell_out


def _by_name_alone(name: str, args: Sequence[object]) -> None:
    """Raise UsageError for an argument behind the subject that is not given by its name."""
    if args:
        raise UsageError(f"{name} takes its further arguments by name, for example k=20; {args[0]!r} has none")


def _spell_signature(ask: Callable[..., object], method: Callable[..., object], model: Callable[..., object]) -> None:
    """Give a method its question, and the signature that help and completion show: its subject and the fields."""
    parameters = list(inspect.signature(method).parameters.values())
    fields = inspect.signature(model).parameters.values()
    answer = inspect.signature(method).return_annotation
    ask.__signature__ = inspect.Signature([*parameters[:-1], *fields], return_annotation=answer)  # type: ignore[attr-defined]
    ask.question = model  # type: ignore[attr-defined]


def bins_table(edges: Sequence[float], counts: Sequence[int]) -> pa.Table:
    """Return one row per bin of a histogram: its lower and upper edge and its count."""
    return pa.table({"low": list(edges[:-1]), "high": list(edges[1:]), "count": list(counts)})


class Questions(Protocol):
    """The questions to one atlas, for `unitscope.open_atlas` and `unitscope.Client` alike.

    Every answer is an Arrow table. Units are written `layer:channel`, images by id, path or picture file.
    """

    @names_checked
    def layers(self) -> pa.Table:
        """Return one row per recorded layer."""
        ...

    @asks_about(questions.UnitsQuestion)
    def units(self, layer: str, question: questions.UnitsQuestion) -> pa.Table:
        """Return one row of statistics per unit of a layer."""
        ...

    @asks(questions.ImagesQuestion)
    def images(self, question: questions.ImagesQuestion) -> pa.Table:
        """Return one row per image of the corpus, in order of ids."""
        ...

    @asks(questions.SkippedQuestion)
    def skipped(self, question: questions.SkippedQuestion) -> pa.Table:
        """Return one row per file of the corpus that is no usable image, with the reason."""
        ...

    @asks_about(questions.TopQuestion)
    def top(self, unit: str, question: questions.TopQuestion) -> pa.Table:
        """Return the patches that most excite a unit.

        More than one peak `per_image` are local maxima of its map, which the model computes again.

        atlas.top("_blocks.15:130", k=50, label="cats", quantile="0.5..0.9")
        """
        ...

    @asks_about(questions.BandsQuestion)
    def bands(self, unit: str, question: questions.BandsQuestion) -> pa.Table:
        """Return some patches from each of equal bands of a unit's distribution, the highest band first."""
        ...

    @asks_about(questions.HistogramQuestion)
    def histogram(self, unit: str, question: questions.HistogramQuestion) -> pa.Table:
        """Return one row per bin of the distribution of a unit's peaks: its two edges and the count of images."""
        ...

    @asks_about(questions.LabelsQuestion)
    def labels(self, unit: str, question: questions.LabelsQuestion) -> pa.Table:
        """Return the labels among a unit's first ranks, with lift and its interval."""
        ...

    @asks_about(questions.SelectivityQuestion)
    def selectivity(self, unit: str, question: questions.SelectivityQuestion) -> pa.Table:
        """Return labels by the chance, over all ranks, that their images excite the unit more than others do."""
        ...

    @asks(questions.SelectiveQuestion)
    def selective(self, question: questions.SelectiveQuestion) -> pa.Table:
        """Return the units whose first ranks hold a label most above its share of the corpus."""
        ...

    @asks_about(questions.FacetsQuestion)
    def facets(self, unit: str, question: questions.FacetsQuestion) -> pa.Table:
        """Return a unit's first exemplars in groups that look alike where it peaks."""
        ...

    @asks_about(questions.SimilarQuestion)
    def similar(self, unit: str, question: questions.SimilarQuestion) -> pa.Table:
        """Return the units of a layer, its own unless another is named, that are most like a unit.

        Likeness is by `coactivation` once `correlate` has computed it for the layers, by `exemplars` or `weights` at
        once.
        """
        ...

    @asks_about(questions.CorrelateQuestion)
    def correlate(self, layer: str, question: questions.CorrelateQuestion) -> None:
        """Compute and store the co-activation of two layers' units, or of one layer's; once for each version."""
        ...

    @asks_about(questions.CompareQuestion)
    def compare(self, other: str, question: questions.CompareQuestion) -> pa.Table:
        """Return for each unit the best match in another atlas of the same pictures; computed once and stored."""
        ...

    @names_checked
    def comparisons(self) -> pa.Table:
        """Return the stored comparisons with other atlases."""
        ...

    @asks_about(questions.ComparisonQuestion)
    def comparison(self, identifier: str, question: questions.ComparisonQuestion) -> pa.Table:
        """Return a stored comparison, unit by unit, of one layer or all."""
        ...

    @asks_about(questions.ExplainQuestion)
    def explain(self, image: str, question: questions.ExplainQuestion) -> pa.Table:
        """Return the units that an image excites most unusually, by percentile among the images that pass."""
        ...

    @asks_about(questions.TraceQuestion)
    def trace(self, unit: str, question: questions.TraceQuestion) -> pa.Table:
        """Return the links that the peak of a unit on an image hangs by, each looked at now, the last recorded anew.

        atlas.trace("_blocks.15:130", image="cats/tom.jpg")
        """
        ...

    @names_checked
    def digests(self, prefix: str) -> pa.Table:
        """Return what has a SHA-256 that begins so, and which answers rest on it."""
        ...

    @asks_about(questions.NeighborsQuestion)
    def neighbors(self, image: str, question: questions.NeighborsQuestion) -> pa.Table:
        """Return the images with the patch most similar to a box of an image.

        atlas.neighbors("cats/tom.jpg", box=(40, 60, 180, 200))
        """
        ...

    @asks_about(questions.OptimiseQuestion)
    def optimise(self, unit: str, question: questions.OptimiseQuestion) -> pa.Table:
        """Return pictures optimised for a unit (of a layer, for all live ones), made now unless they are stored.

        With the objective `class` the unit is the index or label of a class, with `direction` the layer whose units
        the numbers are for.
        """
        ...

    @asks_about(questions.ProjectQuestion)
    def project(self, unit: str, question: questions.ProjectQuestion) -> pa.Table:
        """Return the projections of a unit's first patches, made now unless they are stored."""
        ...

    @names_checked
    def visualisations(self, unit: str) -> pa.Table:
        """Return the stored pictures of a unit or direction, each with the activation it reaches beside the corpus."""
        ...

    @names_checked
    def visualisation(self, unit: str, name: str) -> bytes:
        """Return the PNG of a stored picture of a unit by the id in its row."""
        ...

    @names_checked
    def filters(self, layer: str = "first") -> pa.Table:
        """Return one row for each filter of a layer of the model; `first` is the first layer with weights."""
        ...

    @asks_about(questions.EigenQuestion)
    def eigen(self, unit: str, question: questions.EigenQuestion) -> pa.Table:
        """Return one row for the mean (component 0) and each principal component of a unit's patches."""
        ...
