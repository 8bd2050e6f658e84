import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression_gap.encoders.retina import Retina
from compression_gap.sims import Observation


def look(resolution, *images):
    """Features of single images [h, w, 3], one camera each: [C, R, R, 3]."""
    seen = Observation(
        images={f"camera{i}": image[None, None] for i, image in enumerate(images)},
        proprio=np.zeros((1, 1, 1), np.float32),
        task=np.zeros(1, np.int64),
    )
    return Retina(resolution).features(seen)[0, 0].reshape(len(images), resolution, resolution, 3)


def picture(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def by_hand(image, resolution):
    """Every pixel of every cell, weighted with the area that they share."""
    size = len(image)
    out = np.zeros((resolution, resolution, 3))
    cell = size / resolution
    for r in range(resolution):
        for s in range(resolution):
            for y in range(size):
                for x in range(size):
                    high = min((r + 1) * cell, y + 1) - max(r * cell, y)
                    wide = min((s + 1) * cell, x + 1) - max(s * cell, x)
                    if high > 0 and wide > 0:
                        out[r, s] += high * wide / cell**2 * image[y, x]
    return out / 255


def test_box_averages_when_the_resolution_divides_the_size():
    image = picture(84)
    boxes = image.reshape(12, 7, 12, 7, 3).mean((1, 3)) / 255
    np.testing.assert_allclose(look(12, image)[0], boxes, atol=1e-6)


def test_a_small_image_by_hand():
    """3 pixels in 2 cells: the middle one is shared, so a cell is (2·a + b) / 3."""
    image = np.zeros((3, 3, 3), np.uint8)
    image[:, 0], image[:, 1], image[:, 2] = 255, 102, 0
    expected = [(2 + 0.4) / 3, 0.4 / 3]
    found = look(2, image)[0]
    for row in range(2):
        for channel in range(3):
            np.testing.assert_allclose(found[row, :, channel], expected, atol=1e-6)


@pytest.mark.parametrize(("size", "resolution"), [(10, 3), (10, 7), (9, 4), (5, 8)])
def test_pixels_between_cells_are_shared_by_area(size, resolution):
    image = picture(size)
    np.testing.assert_allclose(look(resolution, image)[0], by_hand(image, resolution), atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(1, 40))
def test_the_mean_is_kept_and_a_plain_image_stays_plain(size, resolution):
    image = picture(size)
    np.testing.assert_allclose(look(resolution, image)[0].mean((0, 1)), image.mean((0, 1)) / 255, atol=1e-5)
    grey = np.full((size, size, 3), 51, np.uint8)
    np.testing.assert_allclose(look(resolution, grey), 0.2, atol=1e-6)


def test_one_pixel_is_the_mean():
    image = picture(17)
    np.testing.assert_allclose(look(1, image)[0, 0, 0], image.mean((0, 1)) / 255, atol=1e-6)


def test_full_resolution_is_the_image():
    image = picture(16)
    np.testing.assert_array_equal(look(16, image)[0], image.astype(np.float32) / np.float32(255))


def test_rows_and_columns_and_cameras_keep_their_places():
    dark = np.zeros((8, 8, 3), np.uint8)
    top_right_green = dark.copy()
    top_right_green[:4, 4:, 1] = 255
    first, second = look(2, dark, top_right_green)
    assert first.max() == 0
    assert second[0, 1].tolist() == [0, 1, 0]
    assert second.sum() == 1


def test_a_ladder_of_divisors_nests():
    """Averaging twice is averaging once: what a coarse rung knows, each finer one knows too."""
    image = picture(32)
    fine = look(16, image)[0]
    np.testing.assert_allclose(fine.reshape(4, 4, 4, 4, 3).mean((1, 3)), look(4, image)[0], atol=1e-6)


def test_images_that_are_not_square():
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    np.testing.assert_allclose(look(3, image)[0], image.reshape(3, 2, 3, 3, 3).mean((1, 3)) / 255, atol=1e-6)
