"""The model, loaded on first use, behind a lock: for pictures from outside and activation maps."""

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unitscope_schemas import tables
from unitscope_schemas.answers.patches import ActivationMap
from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Box, Location, Placement
from unitscope_schemas.questions import ProjectionMethod
from unitscope_schemas.units import LayerSpec, UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.deadlines import check_time
from unitscope_services.encoding.cells import Activations, Cells, checked_cell

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module

    from unitscope_pipelines.vision.attribution.conv_filters import ConvFilters
    from unitscope_pipelines.vision.attribution.deconvnet import Projections
    from unitscope_pipelines.vision.images.preprocessing import PixelBatch, Prepared
    from unitscope_pipelines.vision.models.classes import Classes
    from unitscope_pipelines.vision.models.models import VisionModel


Turn = Callable[[], AbstractContextManager[None]]
"""Context that a forward runs within: a server lets only so many run or wait at once."""
_REMEMBERED_PICTURES = 2
"""Pictures whose recorded outputs stay in memory: 3 MB each for EfficientNet-Lite0, 40 MB for ResNet-50's blocks."""


@dataclass(frozen=True)
class Encoded:
    """A picture as the network and the atlas see it."""

    image_id: str
    prepared: "Prepared"

    @property
    def placement(self) -> Placement:
        """How the picture became the network's input."""
        return self.prepared.placement


class LayerMaps(NamedTuple):
    """One layer's outputs on a picture."""

    layer: str
    maps: NDArray[np.float32]
    """Activation at every location, unit × row × col on the layer's grid."""
    peaks: pa.Table
    """Peak of every unit, as in `cells`."""


class Encoder:
    """The atlas's model, run on single pictures, one at a time, each within a `turn`."""

    def __init__(self, atlas: Atlas, turn: Turn = nullcontext, trust_code: bool = False) -> None:
        self.atlas = atlas
        self._turn, self._trust_code = turn, trust_code
        self._lock = threading.Lock()
        self._methods: dict[str, ProjectionMethod] = {}
        self._methods_lock = threading.Lock()
        self._recent: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        self._recent_lock = threading.Lock()

    def read(self, data: bytes) -> Encoded:
        """Decode and place a picture; raises PictureError."""
        from unitscope_pipelines.vision.images.preprocessing import prepare

        check_time()
        prepared = prepare(data, self.atlas.manifest.preprocessing)
        return Encoded(hashlib.sha256(data).hexdigest(), prepared)

    def load(self) -> None:
        """Load the model now; raises ModelError where its weights or code are no longer the atlas's."""
        with self._turn(), self._lock:
            _ = self._model

    def cells(self, picture: Encoded) -> Cells:
        """Return the peaks of every unit on the picture, by layer, in order of channels."""
        return {name: _peaks(output, self._spec(name)) for name, output in self._forward(picture).items()}

    def layer_maps(self, picture: Encoded, layer: str) -> LayerMaps:
        """Return one layer's maps and peaks on a picture; the forward ends there, and nothing is remembered."""
        from unitscope_pipelines.vision.images.preprocessing import normalise
        from unitscope_pipelines.vision.recording.embedding import as_map
        from unitscope_pipelines.vision.recording.recording import output_of

        spec = self._spec(layer)
        with self._inference() as module:
            images = normalise(self._placed(picture.prepared.pixels[None]), self.atlas.manifest.preprocessing)
            output = output_of(module, layer, images).float().cpu()
        return LayerMaps(layer, as_map(output, spec)[0].numpy(), _peaks(output, spec))

    def embed(self, picture: Encoded, box: Box | None) -> NDArray[np.float32]:
        """Return the pooled unit-length vector of a box of input pixels, rounded as stored ones are.

        Without a box it is that of the whole view.
        """
        from unitscope_pipelines.vision.recording.embedding import cell_regions, cells_of, pool

        spec = self._spec(self.atlas.manifest.embedding.layer)
        cells = cell_regions(spec.grid)[0] if box is None else cells_of(box, spec)
        vector = pool(self._forward(picture)[spec.name], spec, [cells])[0, 0].numpy()
        return np.asarray(vector.astype(np.float16), np.float32)

    def activation_map(self, picture: Encoded, unit: UnitId) -> ActivationMap:
        """Return a unit's activation at every location of its grid; non-finite values are null."""
        from unitscope_pipelines.vision.recording.embedding import as_map

        self.atlas.unit(unit)
        spec = self._spec(unit.layer)
        grid = as_map(self._outputs(picture)[unit.layer], spec)[0, unit.channel].float().numpy()
        row, col = divmod(int(grid.argmax()), grid.shape[1])
        peak = float(grid[row, col])
        return ActivationMap(
            unit=str(unit),
            values=[[value if math.isfinite(value) else None for value in line] for line in grid.tolist()],
            seen_box=picture.placement.seen,
            maximum=peak if math.isfinite(peak) else None,
            row=row,
            col=col,
        )

    def project(
        self, pictures: Sequence[Encoded], unit: UnitId, locations: Sequence[Location], method: ProjectionMethod
    ) -> "Projections":
        """Project the unit's activation at one location of each picture back to the pixels; always in float32."""
        from unitscope_pipelines.vision.attribution.deconvnet import project
        from unitscope_pipelines.vision.images.preprocessing import normalise, stacked

        pixels = stacked([picture.prepared.pixels for picture in pictures])
        images = normalise(self._placed(pixels), self.atlas.manifest.preprocessing)
        with self._alone():
            return project(self._model.module, self._spec(unit.layer), unit.channel, images, locations, method)

    def projection_method(self, layer: str) -> ProjectionMethod:
        """Return the method of projection that fits what lies between the pixels and a layer."""
        from unitscope_pipelines.vision.attribution.deconvnet import default_method

        spec = self._spec(layer)
        with self._methods_lock:
            if layer not in self._methods:
                with self._alone():
                    self._methods[layer] = default_method(self._model.module, spec, self._model.input_shape)
            return self._methods[layer]

    def signals(
        self, picture: Encoded, unit: UnitId, location: Location, method: ProjectionMethod, layer: str
    ) -> NDArray[np.float32]:
        """Return what of a projection's signal reaches a layer before the unit's, unit × row × col.

        Raises UsageError.
        """
        from unitscope_pipelines.vision.attribution.deconvnet import signals
        from unitscope_pipelines.vision.images.preprocessing import normalise

        images = normalise(self._placed(picture.prepared.pixels[None]), self.atlas.manifest.preprocessing)
        start, at = (self._spec(unit.layer), unit.channel), self._spec(layer)
        with self._alone():
            return signals(self._model.module, start, images, location, method, at).numpy()

    def filters(self, layer: str) -> "ConvFilters":
        """Return a layer's weights; `first` is the first layer with weights. Raises UsageError where there are none."""
        from unitscope_pipelines.vision.attribution.conv_filters import read_filters

        with self._alone():
            return read_filters(self._model.module, self._model.input_shape, layer)

    def incoming_weights(self, layer: str) -> NDArray[np.float32]:
        """Return the weights that each unit of a layer reads its inputs with, unit × weight.

        Raises UsageError if there are none.
        """
        from unitscope_pipelines.vision.models.incoming_weights import incoming_weights

        with self._alone():
            return incoming_weights(self._model.module, self._spec(layer))

    def classes(self) -> "Classes":
        """Return the classes that the model tells apart; raises UsageError where it puts out none."""
        from unitscope_pipelines.vision.models.classes import classes_of

        with self._alone():
            return classes_of(self._model)

    def at_cell(self, picture: Encoded, layer: str, cell: Location) -> Activations:
        """Return the activation of every unit of a layer at one cell of its grid, in order of channels."""
        from unitscope_pipelines.vision.recording.embedding import as_map

        spec = self._spec(layer)
        row, col = checked_cell(spec, cell)
        values: Activations = as_map(self._outputs(picture)[layer], spec)[0, :, row, col].float().numpy()
        return values

    @cached_property
    def _model(self) -> "VisionModel":
        from unitscope_pipelines.vision.models.models import reload_model

        entry = self.atlas.manifest.model
        if entry.runs_code and not self._trust_code:
            raise UsageError(
                "the atlas's model is its owner's own code, which is not run here; open the atlas with --trust-code "
                "(trust_code=True in Python) if you trust it"
            )
        model = reload_model(entry, self._trust_code)
        model.module.to(self._device)
        return model

    @cached_property
    def _device(self) -> "torch.device":
        """The kind of device that recorded the atlas, where this machine has one: its values are those of no other."""
        from unitscope_pipelines.vision.recording.device import device_of_kind

        return device_of_kind(self.atlas.manifest.device)

    def _placed(self, pixels: "PixelBatch") -> "PixelBatch":
        return pixels.to(self._device)

    def _spec(self, layer: str) -> LayerSpec:
        return self.atlas.layer(layer).spec

    def _outputs(self, picture: Encoded) -> "dict[str, Tensor]":
        """Return every recorded layer's output as `_forward` does.

        Those of the last few pictures are remembered, as a pointer asks cell after cell.
        """
        with self._recent_lock:
            if (outputs_before := self._recent.get(picture.image_id)) is not None:
                self._recent.move_to_end(picture.image_id)
                return outputs_before
        outputs = self._forward(picture)
        with self._recent_lock:
            self._recent[picture.image_id] = outputs
            while len(self._recent) > _REMEMBERED_PICTURES:
                self._recent.popitem(last=False)
        return outputs

    def _forward(self, picture: Encoded) -> "dict[str, Tensor]":
        """Run a forward and return every recorded layer's output, float32 on the CPU."""
        from unitscope_pipelines.vision.images.preprocessing import normalise
        from unitscope_pipelines.vision.recording.recording import record

        names = [entry.spec.name for entry in self.atlas.manifest.layers]
        with (
            self._inference() as module,
            record(module, names, lambda _, output: output.float().cpu().clone()) as recorded,
        ):
            module(normalise(self._placed(picture.prepared.pixels[None]), self.atlas.manifest.preprocessing))
            return dict(recorded)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait for a turn and for the model, unless the question has had its time by then."""
        check_time()
        with self._turn(), self._lock:
            check_time()
            yield

    @contextmanager
    def _inference(self) -> "Iterator[Module]":
        """Give the model for a forward as at index time, alone and within a turn."""
        import torch

        from unitscope_pipelines.vision.recording.arithmetic import arithmetic

        as_recorded = arithmetic(self._device, self.atlas.manifest.precision)
        with self._alone(), torch.inference_mode(), as_recorded:
            yield self._model.module


def _peaks(output: "Tensor", spec: LayerSpec) -> pa.Table:
    """Return the peaks of a layer's units on one picture, in order of channels."""
    from unitscope_pipelines.vision.recording.peaks import arranged, peaks

    unit_peaks = peaks(arranged(output, spec), spec.name)
    locations = [spec.location(index) for index in unit_peaks.location[0].tolist()]
    columns = [
        pa.array(np.arange(len(locations), dtype=np.int32)),
        pa.array(unit_peaks.activation[0].numpy()),
        pa.array([location.row for location in locations], pa.int16()),
        pa.array([location.col for location in locations], pa.int16()),
    ]
    names = ["unit", "activation", "row", "col"]
    return pa.table(columns, schema=pa.schema([tables.PEAKS.field(column) for column in names]))
