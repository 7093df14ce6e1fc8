"""Boxes on their way between the original picture and the network's input."""

from hypothesis import given
from hypothesis import strategies as st

from unitscope_pipelines.vision.images.preprocessing import place
from unitscope_schemas.entries.model import Preprocessing
from unitscope_schemas.geometry import Box, Size

LITE = Preprocessing(resize_px=256, input=Size(224, 224), interpolation="bicubic", mean=(127,) * 3, std=(128,) * 3)


@given(st.integers(1, 3000), st.integers(1, 3000), st.data())
def test_going_to_the_picture_and_back_keeps_a_box(height: int, width: int, data: st.DataObject) -> None:
    if max(height, width) > 64 * min(height, width):
        return
    placement = place(Size(height, width), LITE)
    top, left = (data.draw(st.integers(0, 222)) for _ in range(2))
    bottom, right = data.draw(st.integers(top + 1, 224)), data.draw(st.integers(left + 1, 224))
    box = Box(top, left, bottom, right)
    back = placement.to_input(placement.to_image(box))
    assert back.top <= box.top and back.left <= box.left and back.bottom >= box.bottom and back.right >= box.right
    grown_rows = -(-placement.resized.height // height)
    grown_cols = -(-placement.resized.width // width)
    assert box.top - back.top <= grown_rows and back.bottom - box.bottom <= grown_rows
    assert box.left - back.left <= grown_cols and back.right - box.right <= grown_cols


def test_a_whole_number_scale_is_inverted_exactly() -> None:
    placement = place(Size(512, 768), LITE)
    for box in (Box(0, 0, 224, 224), Box(3, 7, 4, 8), Box(100, 50, 200, 51)):
        assert placement.to_input(placement.to_image(box)) == box
