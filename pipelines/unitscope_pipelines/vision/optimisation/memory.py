"""Memory of optimising: a shortage of it as an error that says what would do."""

from collections.abc import Iterator
from contextlib import contextmanager

from unitscope_pipelines.vision.models.models import VisionModel
from unitscope_pipelines.vision.recording.memory import is_short_memory
from unitscope_schemas.errors import CapacityError


@contextmanager
def short_memory(count: int, model: VisionModel) -> Iterator[None]:
    """Raise CapacityError within the context instead of what torch raises where there is not enough memory.

    `count` is the number of pictures that go through the model at once.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_short_memory(error):
            raise
        _, rows, cols = model.input_shape
        raise CapacityError(
            f"not enough memory to optimise {count} pictures of {rows} × {cols} pixels at once through "
            f"{model.entry.spec}: make fewer at a time, or on a device with more memory"
        ) from None
