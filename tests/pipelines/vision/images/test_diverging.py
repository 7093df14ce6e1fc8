"""Pictures of signed values."""

import numpy as np
import pytest

from unitscope_pipelines.vision.images.diverging import diverging_picture
from unitscope_schemas.errors import UsageError


def test_diverging_pictures_show_zero_grey_and_clip_beyond_the_share() -> None:
    values = np.zeros((1, 10, 10), np.float32)
    values[0, 0, :3] = 1, -2, 100
    exact, clipped = diverging_picture(values), diverging_picture(values, 0.985)
    assert exact.scale == 100
    assert np.asarray(exact.picture)[0, :4].tolist() == [129, 125, 255, 128]
    assert 1 <= clipped.scale < 100
    assert np.asarray(clipped.picture)[0, 2] == 255
    assert np.asarray(diverging_picture(np.zeros((3, 2, 2), np.float32)).picture).tolist() == [[[128] * 3] * 2] * 2
    with pytest.raises(UsageError, match="not finite"):
        diverging_picture(np.full((1, 2, 2), np.nan, np.float32))
