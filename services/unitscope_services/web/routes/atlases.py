"""The routes of atlases and their layers: what is served, where it comes from, what was skipped."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from unitscope_schemas.answers.provenance import DigestPage, DigestRow
from unitscope_schemas.answers.served import AtlasPage, AtlasRow, LayerPage, LayerRow, SkippedPage, SkippedRow
from unitscope_schemas.entries.corpus import CorpusRoot
from unitscope_schemas.manifest import Manifest
from unitscope_schemas.questions import MOST_ROWS, SkippedQuestion
from unitscope_services.queries.images import skipped_page
from unitscope_services.queries.provenance.digests import MOST_DIGITS, digests
from unitscope_services.web.documentation import ROWS
from unitscope_services.web.parameters import LayerName, paged
from unitscope_services.web.replies import General, Reading
from unitscope_services.web.routes import API

DigestText = Annotated[str, Path(max_length=MOST_DIGITS, description="first four digits of a SHA-256, or more")]

routes = APIRouter(prefix=f"{API}/atlases", tags=["atlases"])


@routes.get("", response_model=AtlasPage, responses=ROWS)
def list_atlases(reply: General) -> Response:
    """List the atlases that are served here."""
    shelf = reply.app_state.atlases
    return reply.rows(AtlasRow, lambda: AtlasPage(rows=[shelf.newest(name).atlas.summary() for name in shelf.names]))


@routes.get("/{atlas}", response_model=AtlasRow)
def read_atlas(reply: Reading) -> Response:
    """Return one atlas in one row."""
    return reply.document(lambda: reply.session.atlas.summary())


@routes.get("/{atlas}/manifest", response_model=Manifest)
def read_manifest(reply: Reading) -> Response:
    """Return the manifest: model, weights, preprocessing, corpus, layers and every part with its digest.

    Paths of the server's disk are cut down to their last name.
    """
    return reply.document(lambda: public_manifest(reply.session.atlas.manifest).model_dump(mode="json"))


@routes.get("/{atlas}/digests/{digest}", response_model=DigestPage, responses=ROWS)
def list_digests(reply: Reading, digest: DigestText) -> Response:
    """List what has a digest that begins so: parts, images, weights, code, versions, and what rests on each."""
    return reply.rows(DigestRow, lambda: digests(reply.session.atlas, digest))


@routes.get("/{atlas}/skipped", response_model=SkippedPage, responses=ROWS)
def list_skipped(reply: Reading, question: Annotated[SkippedQuestion, Query()]) -> Response:
    """List the files of the corpus that are no usable image, each with the reason."""
    return reply.rows(SkippedRow, lambda: skipped_page(reply.session.atlas, paged(question, MOST_ROWS)))


@routes.get("/{atlas}/layers", response_model=LayerPage, responses=ROWS)
def list_layers(reply: Reading) -> Response:
    """List the recorded layers in the order of the forward: grid, stride and receptive field."""
    return reply.rows(LayerRow, lambda: LayerPage(rows=reply.session.atlas.layers()))


@routes.get("/{atlas}/layers/{layer}", response_model=LayerRow)
def read_layer(reply: Reading, layer: LayerName) -> Response:
    """Return one layer in one row."""
    return reply.document(lambda: reply.session.atlas.layer_row(layer))


def public_manifest(manifest: Manifest) -> Manifest:
    """Return the manifest without paths of the machine that wrote it."""
    return manifest.model_copy(
        update={
            "corpus": manifest.corpus.model_copy(
                update={
                    "root": _last_name(manifest.corpus.root),
                    "roots": tuple(map(_public_root, manifest.corpus.roots)),
                }
            ),
            "model": manifest.model.model_copy(
                update={
                    "spec": _last_name(manifest.model.spec),
                    "weights": _last_name(manifest.model.weights),
                    "latents": tuple(map(_without_folder, manifest.model.latents)),
                }
            ),
            "config": {
                name: [_without_folder(entry) for entry in value] if name == "latents" else _last_name(value)
                for name, value in manifest.config.items()
            },
        }
    )


def _public_root(root: CorpusRoot) -> CorpusRoot:
    return root.model_copy(update={"corpus": _last_name(root.corpus), "root": _last_name(root.root)})


def _last_name(value: Any) -> Any:
    return value.replace("\\", "/").rstrip("/").rpartition("/")[2] if isinstance(value, str) else value


def _without_folder(latents: str) -> str:
    layer, _, spec = latents.partition("=")
    return f"{layer}={_last_name(spec)}"
