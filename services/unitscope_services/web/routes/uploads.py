"""The routes of pictures from outside, and of questions in batches."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from unitscope_pipelines.vision.images.pictures import open_picture
from unitscope_schemas.answers.patches import ActivationMap, ExplainPage, NeighborBatch, NeighborPage
from unitscope_schemas.answers.served import Upload
from unitscope_schemas.errors import TooLargeError, UsageError
from unitscope_schemas.question import check_names, faults
from unitscope_schemas.questions import NeighborBatchQuestion, NeighborsQuestion, Text
from unitscope_services.atlas.image_filter import ImageFilter
from unitscope_services.queries.session import Subject
from unitscope_services.server import caching
from unitscope_services.server.uploads import FORMATS, UploadEntry
from unitscope_services.web.documentation import PICTURE, ROWS
from unitscope_services.web.pictures import PictureName, Width, upload_picture
from unitscope_services.web.replies import Computing, Reply
from unitscope_services.web.routes import API
from unitscope_services.web.routes.images import (
    Cell,
    Explain,
    Map,
    Neighbors,
    at_cell,
    explained,
    mapped,
    mapped_picture,
    neighboring,
)

routes = APIRouter(prefix=f"{API}/atlases/{{atlas}}", tags=["uploads"])

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **{media_type: {} for media_type in ("image/jpeg", "image/png", "image/webp")},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
            },
        },
    }
}
_BATCH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NeighborBatchQuestion"}}},
    }
}


@routes.post("/uploads", response_model=Upload, status_code=201, openapi_extra=_BODY)
async def create_upload(reply: Computing, request: Request) -> Response:
    """Keep a picture for a while: the body itself, or the field `file` of a form."""
    data = await read_body(request)
    entry = await run_in_threadpool(keep_upload, reply, data)
    location = f"{request.scope['unitscope.path'].rstrip('/')}/{entry.id}"
    made = replace(reply, private=True, cost="read", headers={"Location": location}, status=201)
    return await run_in_threadpool(made.document, lambda: upload_row(made, entry))


@routes.get("/uploads/{upload}", response_model=Upload)
def read_upload(reply: Computing, upload: Text) -> Response:
    """Return an upload that is still kept."""
    asking = replace(reply, private=True, cost="read")
    return asking.document(lambda: upload_row(asking, find_upload(asking, upload)))


@routes.delete("/uploads/{upload}", status_code=204)
def remove_upload(reply: Computing, upload: Text) -> Response:
    """Forget an upload now."""
    reply.app_state.uploads.remove(reply.atlas, upload, reply.reader.sees)
    return Response(status_code=204, headers={"Cache-Control": caching.PRIVATE})


@routes.get("/uploads/{upload}/units", response_model=ExplainPage, responses=ROWS)
def list_upload_units(reply: Computing, upload: Text, question: Explain) -> Response:
    """List the units that an upload excites most unusually, by percentile over the images that pass."""
    asking = replace(reply, private=True)
    return explained(asking, lambda: upload_subject(asking, upload), question)


@routes.get("/uploads/{upload}/map", response_model=ActivationMap)
def read_upload_map(reply: Computing, upload: Text, question: Map) -> Response:
    """Return a unit's activation at every location of its grid on an upload."""
    asking = replace(reply, private=True)
    return mapped(asking, lambda: upload_subject(asking, upload), question)


@routes.get("/uploads/{upload}/map.png", responses=PICTURE)
def read_upload_map_picture(reply: Computing, upload: Text, question: Map) -> Response:
    """Return a unit's map as a picture to lay over the upload: a pixel a cell and a border, clear where most active."""
    asking = replace(reply, private=True)
    return mapped_picture(asking, lambda: upload_subject(asking, upload), question)


@routes.get("/uploads/{upload}/cells", response_model=ExplainPage, responses=ROWS)
def list_upload_cell_units(reply: Computing, upload: Text, question: Cell) -> Response:
    """List the units of a layer that are most unusually active at one cell of its grid."""
    asking = replace(reply, private=True)
    return at_cell(asking, lambda: upload_subject(asking, upload), question)


@routes.get("/uploads/{upload}/neighbors", response_model=NeighborPage, responses=ROWS)
def list_upload_neighbors(reply: Computing, upload: Text, question: Neighbors) -> Response:
    """List the images with the patch most similar to a box of an upload."""
    asking = replace(reply, private=True)
    return neighboring(asking, lambda: upload_subject(asking, upload), question)


@routes.get("/uploads/{upload}/picture.{kind}", responses=PICTURE)
def read_upload_picture(reply: Computing, upload: Text, kind: PictureName, width: Width = None) -> Response:
    """Return the picture of the upload itself, upright."""
    asking = replace(reply, private=True, cost="picture")
    return upload_picture(asking, find_upload(asking, upload), kind, width)


@routes.post("/neighbors", response_model=NeighborBatch, openapi_extra=_BATCH_BODY)
async def find_neighbors(reply: Computing, request: Request) -> Response:
    """Return the nearest patches of several vectors and uploads at once."""
    data = await request.body()
    asking = replace(reply, private=True, cost="batch")
    # a million numbers take long to read, too: here they keep no other request waiting
    return await run_in_threadpool(asking.document, lambda: _batch(asking, _read_batch(data)))


async def read_body(request: Request) -> bytes:
    """Return the uploaded bytes, whether they are the body or a form's field `file`."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await request.body()
    async with request.form(max_files=1, max_fields=4) as form:
        check_names(list(form), ["file"])
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise UsageError("the form has no file in its field 'file'")
        return await file.read()


def keep_upload(reply: Reply, data: bytes) -> UploadEntry:
    """Check a picture and keep it; raises PictureError, TooLargeError."""
    settings = reply.app_state.settings
    if len(data) > settings.upload_bytes:
        raise TooLargeError(f"{len(data):,} bytes are more than the limit of {settings.upload_bytes:,}")
    open_picture(data, FORMATS, settings.upload_pixels)
    with reply.turn("compute"):  # the first one loads what prepares pictures
        picture = reply.session.encoder.read(data)
    return reply.app_state.uploads.add(reply.reader.owner, reply.atlas, data, picture)


def find_upload(reply: Reply, upload: Text) -> UploadEntry:
    """Return an upload to the reply's atlas, of the one who asks; raises NotFoundError."""
    return reply.app_state.uploads.find(reply.atlas, upload, reply.reader.sees)


def upload_subject(reply: Reply, upload: str) -> Subject:
    """Return an upload as a subject: the image of the corpus with equal bytes, if there is one."""
    picture = find_upload(reply, upload).picture
    image = reply.session.atlas.image_by_id(picture.image_id)
    return Subject(image, None if image else picture)


def upload_row(reply: Reply, entry: UploadEntry) -> Upload:
    """Return an upload as answers show it."""
    return Upload(
        id=entry.id,
        image_id=entry.picture.image_id,
        size=entry.picture.placement.image,
        seen_box=entry.picture.placement.seen,
        expires=entry.expires,
        in_corpus=reply.session.atlas.image_by_id(entry.picture.image_id) is not None,
    )


def _read_batch(data: bytes) -> NeighborBatchQuestion:
    try:
        question = NeighborBatchQuestion.model_validate_json(data)
    except ValidationError as error:
        raise UsageError(faults(error.errors())) from None
    if not question.vectors and not question.uploads:
        raise UsageError("nothing is asked for: give vectors, uploads, or both")
    return question


def _batch(reply: Reply, batch: NeighborBatchQuestion) -> NeighborBatch:
    width = reply.session.atlas.manifest.embedding.width
    for position, vector in enumerate(batch.vectors):
        if len(vector) != width or not any(vector):
            raise UsageError(f"vector {position} is not {width} numbers, one of them other than zero")
    vectors = [np.asarray(vector, np.float64) for vector in batch.vectors]
    subjects = [upload_subject(reply, upload) for upload in batch.uploads]
    passing = ImageFilter(batch.label, batch.where)
    question = NeighborsQuestion(label=batch.label, where=batch.where, k=batch.k, exact=batch.exact)
    searches = [
        *(partial(reply.session.search.nearest, vector, None, batch.k, batch.exact, passing) for vector in vectors),
        *(partial(reply.session.neighbors, subject, question) for subject in subjects),
    ]
    return NeighborBatch(pages=list(map(reply.app_state.telemetry.timed, searches)))
