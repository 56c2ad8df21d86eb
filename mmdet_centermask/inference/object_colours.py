"""Which colour each object gets: distinct from its neighbours', steady in a video."""

from __future__ import annotations

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps

# Hues in a circle, in two tones in turn: neighbours in hue never share a tone.
HUES = 12
FIRST_HUE = 45  # degrees; orange
TONES = ((0.68, 0.21), (0.84, 0.16))  # lightness and chroma
# As far apart as a step can take one after the other without missing a hue.
HUE_STEP = 5
# Oklab (Ottosson, 2020), in which equal steps look equal: lightness, green-red and
# blue-yellow to the roots of cone responses, and their cubes to linear sRGB.
OKLAB_TO_CONES = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
CONES_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
# A box that overlaps one of the last frame this much (IoU) is taken for its object.
SAME_OBJECT = 0.3
# Objects this near, in parts of their size, are neighbours.
MARGIN = 0.15


def distinct_colours() -> np.ndarray:
    """``(12, 3)`` uint8 RGB, such that one after the other look different."""
    numbers = np.arange(HUES) * HUE_STEP % HUES
    hues = np.radians(FIRST_HUE + 360 * numbers / HUES)
    lightness, chroma = np.array(TONES)[numbers % len(TONES)].T
    lab = np.stack([lightness, chroma * np.cos(hues), chroma * np.sin(hues)], 1)
    linear = ((lab @ OKLAB_TO_CONES.T) ** 3 @ CONES_TO_RGB.T).clip(0, 1)
    gamma = 1.055 * linear ** (1 / 2.4) - 0.055
    return np.rint(255 * np.where(linear <= 0.0031308, 12.92 * linear, gamma)).astype(
        np.uint8
    )


def assign_colours(
    boxes: np.ndarray, last_boxes: np.ndarray, last_colours: np.ndarray, count: int
) -> np.ndarray:
    """Give each object one of `count` colours.

    Args:
        boxes: ``(n, 4)``, the important ones first.
        last_boxes: ``(m, 4)`` of the frame before; none for a picture.
        last_colours: ``(m,)`` what those got.
        count: How many colours there are.

    Returns:
        ``(n,)`` ints below `count`. An object that was in the last frame keeps its
        colour; any other takes, of the colours that no neighbour has, the one that
        is used least.
    """
    colours = np.full(len(boxes), -1)
    for new, old in match_boxes(boxes, last_boxes):
        colours[new] = last_colours[old]
    near = neighbours(boxes)
    used = np.bincount(colours[colours >= 0], minlength=count)
    for i in np.flatnonzero(colours < 0):
        taken = colours[near[i]]
        cost = used + len(boxes) * np.isin(np.arange(count), taken)
        colours[i] = np.argmin(cost)
        used[colours[i]] += 1
    return colours


def match_boxes(boxes: np.ndarray, last_boxes: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (new, old) of boxes that are one object, best overlap first."""
    if not len(boxes) or not len(last_boxes):
        return []
    overlaps = bbox_overlaps(
        torch.as_tensor(boxes), torch.as_tensor(last_boxes)
    ).numpy()
    pairs = []
    while overlaps.max() > SAME_OBJECT:
        new, old = np.unravel_index(overlaps.argmax(), overlaps.shape)
        pairs.append((int(new), int(old)))
        overlaps[new], overlaps[:, old] = 0, 0
    return pairs


def neighbours(boxes: np.ndarray) -> np.ndarray:
    """``(n, n)`` bool: do two boxes, a little grown, meet? Not with itself."""
    margin = MARGIN * (boxes[:, 2:] - boxes[:, :2])
    low, high = boxes[:, :2] - margin, boxes[:, 2:] + margin
    meet = (low[:, None] < high[None]).all(-1) & (low[None] < high[:, None]).all(-1)
    np.fill_diagonal(meet, False)
    return meet
