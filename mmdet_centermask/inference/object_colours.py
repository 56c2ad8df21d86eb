"""Which colour each object gets: distinct from its neighbours', steady in a video."""

from __future__ import annotations

import colorsys

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps

# Hues in a circle, each in two tones that differ in lightness as well: neighbours in
# hue never share a tone.
HUES = 12
TONES = ((0.95, 1.0), (0.75, 0.8))  # saturation and value
# As far apart as a step can take one after the other without missing a hue.
HUE_STEP = 5
# A box that overlaps one of the last frame this much (IoU) is taken for its object.
SAME_OBJECT = 0.3
# Objects this near, in parts of their size, are neighbours.
MARGIN = 0.15


def distinct_colours() -> np.ndarray:
    """``(12, 3)`` uint8 RGB, such that one after the other look different."""
    colours = []
    for number in range(HUES):
        hue = number * HUE_STEP % HUES
        colours.append(colorsys.hsv_to_rgb(hue / HUES, *TONES[hue % len(TONES)]))
    return np.rint(255 * np.array(colours)).astype(np.uint8)


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
