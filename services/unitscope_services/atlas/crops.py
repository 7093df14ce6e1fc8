"""A patch's picture from its address: read, checked against the image id, cut from the upright original."""

import io
from typing import Literal

from PIL import Image

from unitscope_pipelines.storage.originals import Original
from unitscope_pipelines.vision.images.channels import is_array, shown_picture
from unitscope_pipelines.vision.images.pictures import open_picture, upright
from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Box, Size
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.deadlines import check_time
from unitscope_services.atlas.rows import ImageEntry

PictureFormat = Literal["jpg", "png", "webp"]

_SAVE = {
    "jpg": {"format": "JPEG", "quality": 90, "subsampling": 0},
    "png": {"format": "PNG", "compress_level": 6},
    "webp": {"format": "WEBP", "quality": 90, "method": 4},
}


def read_image(atlas: Atlas, image: ImageEntry) -> bytes:
    """Return the bytes of an image's file; raises NotFoundError if it is gone or no longer the one that was indexed."""
    check_time()
    return atlas.originals.read_original(original_of(image))


def original_of(image: ImageEntry) -> Original:
    """Return where an image of the corpus is."""
    return Original(image.image_id, image.path, (image.address, *image.other_addresses))


def picture(atlas: Atlas, data: bytes) -> Image.Image:
    """Return the whole upright picture in RGB; of other than one or three channels those that are to be shown."""
    preprocessing = atlas.manifest.preprocessing
    if preprocessing.channels not in (1, 3) or is_array(data):
        return shown_picture(data, preprocessing)
    return upright(open_picture(data))


def cut(whole: Image.Image, box: Box, side_px: int | None = None, context: float = 0.0) -> Image.Image:
    """Return the patch inside an original box, widened by `context` of its sides, scaled so that it fits a square.

    Patches keep their shape; small ones are enlarged with visible pixels' edges smoothed. Raises UsageError for a box
    that is not within the picture.
    """
    size = Size(whole.height, whole.width)
    if not box.inside(size):
        raise UsageError(f"box {','.join(map(str, box))} is not within the picture of {size.height} × {size.width}")
    wide = widened(box, size, context)
    patch = whole.crop((wide.left, wide.top, wide.right, wide.bottom))
    return patch if side_px is None else fitted(patch, side_px)


def widened(box: Box, size: Size, context: float) -> Box:
    """Return a box with `context` of its sides added on each, as far as the picture reaches."""
    rows, cols = round(box.size.height * context), round(box.size.width * context)
    return Box(box.top - rows, box.left - cols, box.bottom + rows, box.right + cols).clipped(size)


def fitted(patch: Image.Image, side_px: int) -> Image.Image:
    """Return a picture scaled so that the longer side has `side_px` pixels."""
    scale = side_px / max(patch.size)
    size = max(1, round(patch.width * scale)), max(1, round(patch.height * scale))
    return patch.resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS)


def encoded(patch: Image.Image, file_format: PictureFormat) -> bytes:
    """Return the picture as a file; the same pixels give the same bytes."""
    buffer = io.BytesIO()
    patch.save(buffer, **_SAVE[file_format])  # type: ignore[arg-type]
    return buffer.getvalue()
