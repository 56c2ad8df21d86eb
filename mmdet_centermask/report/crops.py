"""Pieces of pictures with outlines, as JPEG inside the page."""

from __future__ import annotations

from base64 import b64encode

import cv2
import numpy as np
from pycocotools.coco import COCO

from .evaluated_run import EvaluatedRun
from .mistakes import Mistake

SIDE = 320  # pixels, the longer one
LEAST = 48  # pixels of the picture, so that a small object keeps its surroundings
TRUTH, DETECTION = (178, 114, 0), (0, 94, 213)  # BGR; told apart by everybody
Box = tuple[int, int, int, int]  # x1, y1, x2, y2, whole pixels of the picture


def crop_of(run: EvaluatedRun, mistake: Mistake) -> str | None:
    """A ``data:`` URL: the surroundings, truth in blue, detection in orange.

    None where the picture cannot be read, or is not the one that was annotated.
    """
    entry = run.truth.imgs[mistake.picture]
    pixels = cv2.imread(str(run.images / entry['file_name']))
    if pixels is None or pixels.shape[:2] != (entry['height'], entry['width']):
        return None
    drawn = [
        (run.truth, mistake.truth, TRUTH),
        (run.results[run.kind], mistake.detection, DETECTION),
    ]
    boxes = [entry['bbox'] for _, entry, _ in drawn if entry is not None]
    box = surroundings(boxes, *pixels.shape[:2])
    x1, y1, x2, y2 = box
    scale = SIDE / max(x2 - x1, y2 - y1)
    size = (round((x2 - x1) * scale), round((y2 - y1) * scale))
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    piece = cv2.resize(pixels[y1:y2, x1:x2], size, interpolation=how)
    for coco, entry, colour in drawn:
        if entry is not None:
            outline(piece, area_in(run.kind, coco, entry), box, colour)
    _, data = cv2.imencode('.jpg', piece, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return 'data:image/jpeg;base64,' + b64encode(data.tobytes()).decode()


def surroundings(boxes: list[list[float]], height: int, width: int) -> Box:
    """The part of the picture around all of ``boxes`` (``x, y, width, height``).

    A third of their extent is added on each side, and more where they are small.
    """
    xywh = np.array(boxes)
    low = np.clip(xywh[:, :2].min(0), 0, (width, height))
    high = np.clip((xywh[:, :2] + xywh[:, 2:]).max(0), 0, (width, height))
    margin = np.maximum((high - low) / 3, (LEAST - (high - low)) / 2)
    x1, y1 = np.floor(np.maximum(low - margin, 0)).astype(int)
    x2, y2 = np.ceil(np.minimum(high + margin, (width, height))).astype(int)
    return int(x1), int(y1), max(int(x2), int(x1) + 1), max(int(y2), int(y1) + 1)


def area_in(kind: str, coco: COCO, entry: dict) -> np.ndarray:
    """The mask ``(H, W)`` of an entry, or its box filled where boxes are compared."""
    if kind == 'segm':
        return coco.annToMask(entry)
    picture = coco.imgs[entry['image_id']]
    mask = np.zeros((picture['height'], picture['width']), np.uint8)
    x, y, width, height = np.maximum(entry['bbox'], 0)
    mask[round(y) : round(y + height), round(x) : round(x + width)] = 1
    return mask


def outline(
    piece: np.ndarray, mask: np.ndarray, box: Box, colour: tuple[int, int, int]
) -> None:
    """Draw the border of ``mask`` ``(H, W)`` on the enlarged ``piece`` of ``box``."""
    x1, y1, x2, y2 = box
    part = cv2.resize(mask[y1:y2, x1:x2], piece.shape[1::-1])
    contours, _ = cv2.findContours(part, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(piece, contours, -1, (255, 255, 255), 4, cv2.LINE_AA)
    cv2.drawContours(piece, contours, -1, colour, 2, cv2.LINE_AA)
