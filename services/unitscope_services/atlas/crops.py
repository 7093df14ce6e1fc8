"""A patch's picture from its address: read, checked against the image id, cut from the upright original."""

import io
from collections.abc import Sequence
from typing import Literal

from PIL import Image

from unitscope_pipelines.storage.originals import Original
from unitscope_pipelines.vision.images.channels import is_array, shown_picture
from unitscope_pipelines.vision.images.pictures import open_picture, orientation, upright
from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Box, Size
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.deadlines import check_time
from unitscope_services.atlas.rows import ImageEntry

PictureFormat = Literal["jpg", "png", "webp"]

_TURNED = 5
"""First EXIF orientation of those whose width is the height of the upright picture."""
_THUMBNAIL_SCALE = 1.5
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
    if is_plain(atlas, data):
        return upright(open_picture(data))
    return shown_picture(data, atlas.manifest.preprocessing)


def is_plain(atlas: Atlas, data: bytes) -> bool:
    """Return whether a file is an ordinary picture, which is shown as it is: no array, no image of other channels."""
    return atlas.manifest.preprocessing.channels in (1, 3) and not is_array(data)


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


def thumbnails(data: bytes, boxes: Sequence[Box], side_px: int) -> list[Image.Image]:
    """Return the patches inside some original boxes as `cut` does, but of a JPEG file decoded at a reduced size.

    The size is one that leaves each patch at least one and a half times as large as it is shown, so that it differs
    from the exact one by some two shades on average. Boxes that lie beyond the picture raise UsageError as in `cut`.
    """
    opened = open_picture(data)
    width, height = opened.size if orientation(opened) < _TURNED else opened.size[::-1]
    share = _THUMBNAIL_SCALE * side_px / min(max(box.size) for box in boxes)
    if share < 1:
        opened.draft(None, (max(1, int(opened.width * share)), max(1, int(opened.height * share))))
    whole = upright(opened)
    if whole.size == (width, height):
        return [cut(whole, box, side_px) for box in boxes]
    across, down = whole.width / width, whole.height / height
    patches = []
    for box in boxes:
        if not box.inside(Size(height, width)):
            raise UsageError(f"box {box} is not within the picture of {height} × {width}")
        scale = side_px / max(box.size)
        size = max(1, round(box.size.width * scale)), max(1, round(box.size.height * scale))
        seen = (box.left * across, box.top * down, box.right * across, box.bottom * down)
        patches.append(whole.resize(size, Image.Resampling.LANCZOS, seen))
    return patches


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
