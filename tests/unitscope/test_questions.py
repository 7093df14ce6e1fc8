"""Every question is stated once: routes, commands, an opened atlas and a client have the names of its model."""

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from fastapi.routing import APIRoute

import unitscope
from unitscope.cli import app
from unitscope.client import Client
from unitscope.opened_atlas import OpenedAtlas
from unitscope.questions import Questions
from unitscope_schemas import questions
from unitscope_schemas.answers import annotations
from unitscope_schemas.answers.jobs import CompareJob, OptimiseJob, ProjectJob, SimilarJob
from unitscope_schemas.errors import UsageError
from unitscope_schemas.question import Question
from unitscope_services.server.settings import Settings
from unitscope_services.web.app import create_app
from unitscope_services.web.documentation import describe

BASES = {"Question", "PassingQuestion", "ExemplarQuestion", "BandedQuestion"}
MODELS = [
    model
    for name, model in {**vars(questions), **vars(annotations)}.items()
    if inspect.isclass(model) and issubclass(model, Question) and name not in BASES
]
OF_JOBS = {OptimiseJob, ProjectJob, SimilarJob, CompareJob}
"""Questions whose answers take long: what a server is asked for in the body of a job."""
OF_BODIES = {"NeighborBatchQuestion", "AnnotateQuestion", "CollectQuestion"}
"""Questions that a server is asked in the body of a request."""
OVER_HTTP_ALONE = {"CellQuestion", "MapQuestion", "NeighborBatchQuestion", "TopPageQuestion"}
"""Questions that pages and programs of other languages ask."""
WITHOUT_COMMAND = {
    *OVER_HTTP_ALONE,
    *("SkippedQuestion", "HistogramQuestion", "BandsQuestion", "SelectivityQuestion"),
    *("SelectiveQuestion", "ComparisonQuestion", "CorrelateQuestion", "TraceQuestion"),
}
"""Questions that are an option or argument of another command, or whose answer has no command of its own."""


def question_of(route: APIRoute) -> type[Question] | None:
    for parameter in route.dependant.query_params:
        kind = parameter.field_info.annotation
        if inspect.isclass(kind) and issubclass(kind, Question):
            return kind
    return None


def routes() -> Iterator[tuple[APIRoute, type[Question]]]:
    for group in create_app(Settings(atlases=(Path("nowhere"),))).routes:
        for route in getattr(getattr(group, "original_router", None), "routes", ()):
            if isinstance(route, APIRoute) and (question := question_of(route)):
                yield route, question


def methods(kind: type) -> dict[str, type[Question]]:
    return {name: method.question for name, method in vars(kind).items() if hasattr(method, "question")}


def commands() -> dict[str, type[Question]]:
    return {
        info.callback.__name__: info.callback.question
        for info in app.registered_commands
        if info.callback is not None and hasattr(info.callback, "question")
    }


def test_every_question_can_be_asked_over_http() -> None:
    asked = {question for _, question in routes()} | {base for job in OF_JOBS for base in job.__bases__}
    by_page = {"TopQuestion"}  # as its TopPageQuestion
    assert {model.__name__ for model in MODELS} - by_page == {model.__name__ for model in asked} | OF_BODIES


def test_a_route_has_the_names_the_help_and_the_ranges_of_its_question() -> None:
    document = describe(create_app(Settings(atlases=(Path("nowhere"),))))
    for route, question in routes():
        operation = document["paths"][route.path][next(iter(route.methods)).lower()]
        listed = {each["name"]: each for each in operation["parameters"] if each["in"] == "query"}
        assert listed.keys() - {"safe"} == question.model_fields.keys(), route.path
        for name, field in question.model_fields.items():
            assert listed[name]["description"] == field.description, (route.path, name)
            for bound, key in (("ge", "minimum"), ("le", "maximum")):
                limits = [getattr(part, bound) for part in field.metadata if hasattr(part, bound)]
                schema = listed[name]["schema"]
                shown = [part[key] for part in (schema, *schema.get("anyOf", ())) if key in part]
                assert shown == limits, (route.path, name)


def test_an_opened_atlas_and_a_client_answer_the_same_questions() -> None:
    asked = methods(Questions)
    assert {model.__name__ for model in asked.values()} == {model.__name__ for model in MODELS} - OVER_HTTP_ALONE
    assert methods(Client) == asked
    own = methods(OpenedAtlas)
    assert {name: own[name] for name in asked} == asked
    for name, question in asked.items():
        for kind in (Questions, OpenedAtlas, Client):
            arguments = inspect.signature(getattr(kind, name)).parameters
            assert list(arguments)[-len(question.model_fields) :] == list(question.model_fields), (kind, name)
            for field, stated in question.model_fields.items():
                assert arguments[field].default == (inspect.Parameter.empty if stated.is_required() else stated.default)


def test_a_command_has_the_names_the_help_and_the_ranges_of_its_question() -> None:
    built: Any = typer.main.get_command(app)
    asked = commands()
    assert {model.__name__ for model in asked.values()} == {model.__name__ for model in MODELS} - WITHOUT_COMMAND
    for name, question in asked.items():
        options = {option.name: option for option in built.commands[name].params}
        for field, stated in question.model_fields.items():
            option = options[field]
            if (name, field) == ("optimise", "direction"):
                continue  # a command reads the numbers from a file
            assert option.opts == ["-k" if field == "k" else f"--{field.replace('_', '-')}"]
            assert option.help == (stated.description or "").replace("`", ""), (name, field)
            for bound, key in (("ge", "min"), ("le", "max")):
                limits = [getattr(part, bound) for part in stated.metadata if hasattr(part, bound)]
                assert getattr(option, key) == (limits[0] if limits else None), (name, field)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_says_what_it_is(model: type[Question]) -> None:
    assert all(field.description for field in model.model_fields.values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"lable": "cat"}, "there is no parameter 'lable' here; did you mean label?"),
        ({"expand_duplicates": True}, "did you mean duplicates?"),
        ({"limit": 3}, "there is no parameter 'limit' here; there are cursor, duplicates, k"),
        ({"k": 0}, "k: should be greater than or equal to 1, not 0"),
        ({"k": 10**8}, "k: should be less than or equal to 10000000, not 100000000"),
        ({"order": "best"}, "order: should be 'desc', 'asc' or 'random', not 'best'"),
        ({"order": "decs"}, "did you mean 'desc'?"),
        ({"duplicates": "expnd"}, "did you mean 'expand'?"),
        ({"quantiles": "0.1..0.2"}, "there is no parameter 'quantiles' here; did you mean quantile?"),
        ({"quantile": (None, 1)}, "is not a band a..b with 0 <= a <= b <= 1"),
        ({"min_activation": 1e39}, "min_activation: should be less than or equal to 34028234"),
        ({"seed": 2**63}, "seed: should be less than or equal to 9223372036854775807"),
        ({"quantile": "0.4"}, "quantile '0.4' is not a band a..b, for example 0.4..0.6"),
        ({"quantile": (0.9, 0.1)}, "quantile '0.9..0.1' is not a band a..b with 0 <= a <= b <= 1"),
        ({"quantile": 0.5}, "quantile '0.5' is not a band a..b with 0 <= a <= b <= 1"),
        ({"quantile": [0.5]}, "quantile '0.5' is not a band a..b with 0 <= a <= b <= 1"),
        ({"quantile": (0.1, 0.2, 0.3)}, "quantile '0.1..0.2..0.3' is not a band a..b with 0 <= a <= b <= 1"),
        ({"quantile": "0..nan"}, "is not a band a..b with 0 <= a <= b <= 1"),
    ],
)
def test_a_misspelt_or_impossible_argument_is_an_error_that_says_what_would_do(
    tiny_atlas: Path, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        unitscope.open_atlas(str(tiny_atlas)).top("_blocks.5:3", **arguments)


def test_an_argument_without_its_name_is_refused_in_words(tiny_atlas: Path) -> None:
    atlas: Any = unitscope.open_atlas(str(tiny_atlas))
    with pytest.raises(UsageError, match="top takes its further arguments by name, for example k=20; 20 has none"):
        atlas.top("_blocks.5:3", 20)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: unitscope.open_atlas("atlas", verion="1"), "parameter 'verion' here; did you mean version?"),
        (lambda: unitscope.Client("http://127.0.0.1:1", kye="x"), "parameter 'kye' here; did you mean key?"),
        (lambda: OpenedAtlas("atlas", trustcode=True), "parameter 'trustcode' here; did you mean trust_code?"),
        (lambda: OpenedAtlas.filters(None, layr="x"), "parameter 'layr' here; did you mean layer?"),
        (lambda: Client.visualisation(None, unit="a:1", nme="x"), "parameter 'nme' here; did you mean name?"),
        (lambda: Client.layers(None, k=3), "parameter 'k' here; there are none"),
        (lambda: OpenedAtlas.explain(None, 7), "explain asks about one image; 7 is no text"),
        (lambda: Client.top(None, k=7), "top asks about one unit; none is given"),
        (lambda: OpenedAtlas.top(None, unti="a:1"), "parameter 'unti' here; did you mean unit?"),
    ],
)
def test_misspelt_arguments_of_every_public_call_are_errors_with_the_nearest_name(
    call: Callable[[], object], said: str
) -> None:
    """Entry 26: also where no question stands behind a method."""
    with pytest.raises(UsageError, match=re.escape(said)):
        call()


def test_what_a_method_asks_about_may_be_named(tiny_atlas: Path) -> None:
    atlas: Any = unitscope.open_atlas(path=str(tiny_atlas))
    assert atlas.top(unit="_blocks.5:3", k=2).equals(atlas.top("_blocks.5:3", k=2))


def test_more_patches_than_a_page_holds_come_at_once_outside_of_http() -> None:
    assert questions.TopQuestion(k=1001).k == 1001
    with pytest.raises(UsageError, match="less than or equal to 1000, not 1001"):
        questions.TopPageQuestion(k=1001)


@pytest.mark.parametrize("written", ["0.25..0.5", (0.25, 0.5), [0.25, 0.5], ["0.25", "0.5"], ["0.25..0.5"]])
def test_a_band_is_read_from_text_numbers_and_the_fields_of_a_form(written: Any) -> None:
    assert questions.TopQuestion(quantile=written).band == (0.25, 0.5)


@pytest.mark.parametrize("written", ["1,2,3,4", (1, 2, 3, 4), ["1", "2", "3", "4"], ["1,2,3,4"]])
def test_a_box_is_read_from_text_numbers_and_the_fields_of_a_form(written: Any) -> None:
    region = questions.NeighborsQuestion(box=written).region
    assert region is not None
    assert (region.top, region.left, region.bottom, region.right) == (1, 2, 3, 4)


@pytest.mark.parametrize("empty", ["", [""], ["", ""], None])
def test_fields_that_a_form_leaves_empty_ask_for_nothing(empty: Any) -> None:
    assert questions.TopQuestion(quantile=empty).band is None
    assert questions.NeighborsQuestion(box=empty).region is None
