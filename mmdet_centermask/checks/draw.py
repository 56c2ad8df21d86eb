"""Draw the worst offenders of each finding: seeing is quicker than reading."""

from __future__ import annotations

import math
import os.path as osp
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from .annotation_table import AnnotationTable
from .checking import FileReport
from .finding import Finding
from .masks import MaskKind

LONGEST = 1000  # pixels of a drawing without its margin
MARGIN = 40  # pixels around the picture, where boxes reach out of it
MASK, BOX, FRAME, TEXT = (60, 200, 60), (230, 40, 40), (60, 140, 230), (0, 0, 0)
GROUND, NO_PICTURE = (255, 255, 255), (170, 170, 170)


def draw_findings(report: FileReport, folder: Path, worst: int) -> list[Path]:
    """Write a PNG for each of the `worst` offenders of every error and warning.

    Blue is the picture as the JSON states its size, red the box, green the mask.
    Returns the files.
    """
    if report.table is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    split = re.sub(r'_dataloader.*', '', report.source.fields[0])
    written = []
    for finding in report.findings:
        if finding.severity == 'info':
            continue
        for place, row in enumerate(finding.rows[:worst]):
            drawing = draw_offender(report, finding, int(row))
            if drawing is not None:
                name = re.sub(r'\W+', '-', f'{split} {finding.what} {place + 1}')
                written.append(folder / f'{name}.png')
                drawing.save(written[-1])
    return written


def draw_offender(report: FileReport, finding: Finding, row: int) -> Image.Image | None:
    """The picture with the annotation, or with all of them if it is the offender.

    None where the annotation belongs to no picture.
    """
    table, source = report.table, report.source
    assert table is not None
    image = row if finding.subject == 'image' else int(table.image[row])
    if image < 0:
        return None
    rows = (
        [row] if finding.subject == 'annotation' else np.flatnonzero(table.image == row)
    )
    canvas = open_canvas(table, source.folder, image)
    for annotation in rows:
        draw_mask(canvas, table, int(annotation))
    for annotation in rows:
        canvas.rectangle(table.corners[annotation], BOX)
    canvas.rectangle(np.array([0, 0, *table.image_sizes[image]]), FRAME)
    name = finding.offenders[list(finding.rows).index(row)]
    text = f'{finding.what}: {finding.subject} {name}, {table.file_name(image)}'
    canvas.draw.text((4, 4), text, TEXT)
    return canvas.drawing


class Canvas:
    """A drawing whose coordinates are those of the picture.

    Args:
        picture: RGB.
        scale: Pixels of the drawing for one of the picture.
    """

    def __init__(self, picture: Image.Image, scale: float) -> None:
        self.scale = scale
        picture = self.scaled(picture)
        width, height = picture.size
        size = width + 2 * MARGIN, height + 2 * MARGIN
        self.drawing = Image.new('RGB', size, GROUND)
        self.drawing.paste(picture, (MARGIN, MARGIN))
        self.draw = ImageDraw.Draw(self.drawing)

    def scaled(self, layer: Image.Image) -> Image.Image:
        """A layer of the picture's size in pixels of the drawing."""
        width, height = (max(1, round(side * self.scale)) for side in layer.size)
        return layer.resize((width, height))

    def places(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 2) of the picture in pixels of the drawing, kept on it."""
        last = np.array(self.drawing.size) - 1
        return np.clip(points * self.scale + MARGIN, 0, last)

    def rectangle(self, corners: np.ndarray, colour: tuple[int, int, int]) -> None:
        """An outline from x1, y1, x2, y2; nothing where they are not finite."""
        if np.isfinite(corners).all():
            ends = self.places(corners.reshape(2, 2))
            box = [*ends.min(0), *ends.max(0)]
            self.draw.rectangle(box, outline=colour, width=2)


def open_canvas(table: AnnotationTable, folder: str | None, image: int) -> Canvas:
    """The picture, or grey of its size where it cannot be read."""
    try:
        with Image.open(osp.join(folder or '', table.file_name(image))) as file:
            picture = file.convert('RGB')
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        sizes = np.nan_to_num(table.image_sizes[image], nan=64)
        width, height = np.clip(sizes, 1, 4 * LONGEST).astype(int).tolist()
        picture = Image.new('RGB', (width, height), NO_PICTURE)
    return Canvas(picture, min(4.0, LONGEST / max(picture.size)))


def draw_mask(canvas: Canvas, table: AnnotationTable, row: int) -> None:
    """Outline polygons, and fill run-length codes; nothing where they are broken."""
    value: Any = table.annotations[row].get('segmentation')
    if table.masks.kind[row] == MaskKind.POLYGONS and table.masks.finite[row]:
        for part in value:
            points = np.array(part[: len(part) // 2 * 2], float).reshape(-1, 2)
            places = [tuple(place) for place in canvas.places(points)]
            if len(places) > 1:
                canvas.draw.line([*places, places[0]], MASK, 2)
            for x, y in places:
                canvas.draw.ellipse((x - 2, y - 2, x + 2, y + 2), MASK)
    elif table.masks.kind[row] == MaskKind.RLE and not table.masks.broken[row]:
        height, width = table.masks.rle_size[row].tolist()
        if math.prod((height, width)) > 10**8:
            return
        if isinstance(value['counts'], list):
            value = coco_mask.frPyObjects(value, height, width)
        area = Image.fromarray(coco_mask.decode(value) * 128)
        cover = canvas.scaled(area)
        layer = Image.new('RGB', cover.size, MASK)
        canvas.drawing.paste(layer, (MARGIN, MARGIN), cover)
