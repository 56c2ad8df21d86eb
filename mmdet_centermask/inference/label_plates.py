"""Labels as small pictures, and free places for them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# matplotlib brings it along, and with it most alphabets.
FONT = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf'
# Brightness from which black letters read better than white ones.
BRIGHT = 130


@lru_cache(maxsize=32)
def font_of(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONT), size)


@lru_cache(maxsize=4096)
def letters_of(text: str, size: int) -> np.ndarray:
    """``(h, w)`` in 0..1, how much of each pixel the letters cover.

    Args:
        text: One line.
        size: Of the font in pixels.
    """
    font = font_of(size)
    pad = max(1, size // 6)
    ascent, descent = font.getmetrics()
    width = int(np.ceil(font.getlength(text)))
    canvas = Image.new('L', (width + 2 * pad, ascent + descent))
    ImageDraw.Draw(canvas).text((pad, 0), text, font=font, fill=255)
    return np.asarray(canvas, dtype=np.float32) / 255


def plate_of(text: str, size: int, colour: np.ndarray) -> np.ndarray:
    """``(h, w, 3)`` uint8 RGB: letters on a plate of `colour`, black or white."""
    brightness = np.dot(colour, (0.299, 0.587, 0.114))
    letters = 0.0 if brightness > BRIGHT else 255.0
    cover = letters_of(text, size)[..., None]
    return np.rint(colour * (1 - cover) + letters * cover).astype(np.uint8)


def place_labels(
    boxes: np.ndarray, sizes: np.ndarray, height: int, width: int
) -> list[tuple[int, int] | None]:
    """Find a place for the label of each object, the first ones first.

    Tried are: above the box, below it, inside its upper left and lower left corner,
    each moved into the picture.

    Args:
        boxes: ``(n, 4)`` in pixels.
        sizes: ``(n, 2)`` width and height of each label.
        height: Of the picture.
        width: Of the picture.

    Returns:
        For each object x and y of the label's upper left corner, or None where every
        place would cover another label or the middle of another object.
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    taken = np.zeros((0, 4))
    places: list[tuple[int, int] | None] = []
    for i, (box, size) in enumerate(zip(boxes, sizes, strict=True)):
        tries = candidates(box, size, height, width)
        others = np.delete(centres, i, axis=0)
        free = [t for t in tries if is_free(t, taken) and not covers(t, others)]
        if not free:
            places.append(None)
            continue
        taken = np.vstack([taken, free[0]])
        places.append((int(free[0][0]), int(free[0][1])))
    return places


def candidates(
    box: np.ndarray, size: np.ndarray, height: int, width: int
) -> list[np.ndarray]:
    """Rectangles ``(4,)`` for a label, best first."""
    x, top, bottom = box[0], box[1], box[3]
    label_width, label_height = size
    result = []
    for y in (top - label_height, bottom, top, bottom - label_height):
        if np.floor(y) >= 0 and np.floor(y) + label_height <= height:
            left = max(0, min(np.floor(x), width - label_width))
            result.append(
                np.array(
                    [left, np.floor(y), left + label_width, np.floor(y) + label_height]
                )
            )
    return result


def is_free(rectangle: np.ndarray, taken: np.ndarray) -> bool:
    """Whether `rectangle` meets none of `taken` ``(m, 4)``."""
    apart = (rectangle[:2] >= taken[:, 2:]) | (rectangle[2:] <= taken[:, :2])
    return bool(apart.any(axis=1).all())


def covers(rectangle: np.ndarray, points: np.ndarray) -> bool:
    """Whether any of the `points` ``(m, 2)`` lies in `rectangle`."""
    return bool(((rectangle[:2] <= points) & (points < rectangle[2:])).all(1).any())
