"""A session holds an opened atlas; its pictures, of the corpus or from outside, are what questions are about.

Command line, notebooks and API all come through here, so that they give one answer.
"""

import hashlib
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from unitscope_pipelines.storage.allowed_roots import AllowedRoots
from unitscope_pipelines.storage.stores import AtlasAddress, Store
from unitscope_schemas.addresses import as_text
from unitscope_schemas.answers.patches import ActivationMap, ExplainPage, NeighborPage, PatchRow
from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Location, Placement
from unitscope_schemas.question import is_file
from unitscope_schemas.questions import CellQuestion, ExplainQuestion, NeighborsQuestion, TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.annotations.annotation_file import AnnotationFile
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.boxes import checked_box
from unitscope_services.atlas.crops import read_image
from unitscope_services.atlas.gallery import Gallery
from unitscope_services.atlas.image_filter import ImageFilter
from unitscope_services.atlas.rows import ImageEntry
from unitscope_services.encoding.cells import CellPeaks, checked_cell
from unitscope_services.encoding.encoder import Encoded, Encoder, Turn
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.explain import ComputedPeaks, PicturePeaks, StoredPeaks, explain
from unitscope_services.queries.unit_selection import striking_units

if TYPE_CHECKING:
    from unitscope_pipelines.vision.attribution.conv_filters import ConvFilters
    from unitscope_pipelines.vision.images.preprocessing import Pixels
    from unitscope_services.queries.neighbors import PatchSearch


@dataclass(frozen=True)
class Subject:
    """A picture: its row if its bytes are in the corpus, otherwise the picture as the network sees it."""

    image: ImageEntry | None
    picture: Encoded | None


class Session:
    """An opened atlas with its patch search and, loaded only when needed, its model."""

    def __init__(
        self,
        root: AtlasAddress | Store,
        question_timeout_s: float | None = None,
        turn: Turn = nullcontext,
        trust_code: bool = False,
        version: str | None = None,
        corpus: str | AllowedRoots | None = None,
        check: bool = True,
        public: bool = False,
        annotations: Path | None = None,
    ) -> None:
        self.atlas = Atlas(root, question_timeout_s, version, corpus, check, public)
        self._annotations = annotations
        self._turn, self.trust_code = turn, trust_code

    @cached_property
    def annotations(self) -> AnnotationFile:
        """Return the file of what people wrote about the atlas's units and images."""
        store, weights = self.atlas.store, self.atlas.manifest.model.weights_digest
        return AnnotationFile.beside(store.address, self._annotations, store.name, weights)

    @cached_property
    def search(self) -> "PatchSearch":
        # with FAISS, a third of a second that others do without
        """Return the search for nearest patches, loaded on first use."""
        from unitscope_services.queries.neighbors import PatchSearch

        return PatchSearch(self.atlas)

    @cached_property
    def striking(self) -> list[tuple[UnitId, list[PatchRow]]]:
        """Return a few units worth looking at first, with their first patches; they are sought once per version."""
        query = TopQuestion(k=6)
        return [(unit, patches(self.atlas, unit, query).rows) for unit in striking_units(self.atlas, count=4)]

    @cached_property
    def encoder(self) -> Encoder:
        """Return the model that computes peaks and embeddings of pictures, loaded on first use."""
        return Encoder(self.atlas, self._turn, self.trust_code)

    @cached_property
    def gallery(self) -> Gallery:
        """Return the stored optimised and projected pictures of the atlas."""
        return Gallery(self.atlas.store)

    @cached_property
    def first_filters(self) -> "ConvFilters":
        """Return the filters of the model's first layer with weights, which takes a forward to find."""
        return self.encoder.filters("first")

    def find(self, reference: str) -> Subject:
        """Return an image of the corpus by id, beginning of the id or path; or else a picture file."""
        path = Path(reference)
        if is_file(path):
            return self.read(path.read_bytes())
        return Subject(self.atlas.find_image(as_text(reference)), None)

    def read(self, data: bytes) -> Subject:
        """Return a picture by its bytes: the image of the corpus if it has equal bytes; raises PictureError."""
        image = self.atlas.image_by_id(hashlib.sha256(data).hexdigest())
        return Subject(image, None if image else self.encoder.read(data))

    def placement(self, subject: Subject) -> Placement:
        """Return how the picture becomes the network's input."""
        return self.atlas.placement(subject.image) if subject.image else self._picture(subject).placement

    @property
    def stores_peaks(self) -> bool:
        """Return whether the peaks of a corpus image can be read without the model: a bounded atlas does not store
        them."""
        return self.atlas.manifest.keep is None

    def explain(self, subject: Subject, question: ExplainQuestion) -> ExplainPage:
        """Return the units that the picture excites most unusually, by percentile among the images that pass."""
        if subject.image is not None and self.stores_peaks:
            peaks: PicturePeaks = StoredPeaks(self.atlas, subject.image)
        else:
            peaks = ComputedPeaks(self.encoder.cells(self._picture(subject)))
        return explain(self.atlas, peaks, self.placement(subject), question)

    def neighbors(self, subject: Subject, question: NeighborsQuestion) -> NeighborPage:
        """Return the images with the patch most similar to a box of the picture (None: all that the network sees)."""
        self.check_embedded(question.layer)
        placement, box = self.placement(subject), question.region
        seen = None if box is None else checked_box(box, placement)
        stored = None if subject.image is None else self.search.stored(subject.image, box)
        vector, query_box = stored or (self.encoder.embed(self._picture(subject), seen), box or placement.seen)
        passing = ImageFilter(question.label, question.where)
        return self.search.nearest(vector, query_box, question.k, question.exact, passing)

    def pixels(self, subject: Subject) -> "Pixels":
        """Return the picture as the network sees it, resized and cropped, in 8 bits."""
        return self._picture(subject).prepared.pixels

    def activation_map(self, subject: Subject, unit: UnitId) -> ActivationMap:
        """Return a unit's activation at every location of its grid."""
        return self.encoder.activation_map(self._picture(subject), unit)

    def at_cell(self, subject: Subject, question: CellQuestion) -> ExplainPage:
        """Return the units of a layer that are most unusually active at one cell of its grid, by percentile of peaks.

        Raises UsageError for a cell that is not on the grid.
        """
        layer, cell = question.layer, Location(question.row, question.col)
        checked_cell(self.atlas.layer(layer).spec, cell)
        peaks = CellPeaks(self.encoder.at_cell(self._picture(subject), layer, cell), cell)
        explain_question = ExplainQuestion(layer=layer, k=question.k)
        return explain(self.atlas, peaks, self.placement(subject), explain_question)

    def check_embedded(self, layer: str | None) -> None:
        """Raise UsageError if a layer is named that is not the one whose embeddings are indexed."""
        embedded = self.atlas.manifest.embedding.layer
        if layer not in (None, embedded):
            self.atlas.layer(str(layer))
            raise UsageError(f"patches are indexed by layer {embedded!r}, not {layer!r}; index with --embed {layer}")

    def _picture(self, subject: Subject) -> Encoded:
        if subject.picture is not None:
            return subject.picture
        assert subject.image is not None
        return self.encoder.read(read_image(self.atlas, subject.image))
