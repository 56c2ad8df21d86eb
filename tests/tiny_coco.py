"""A COCO file of two pictures with nothing wrong, to be broken in one place."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

WIDTH, HEIGHT = 100, 80
CLASSES = ('apple', 'pear')


def rle(x: int, y: int, width: int, height: int, size=(HEIGHT, WIDTH)) -> dict:
    """A filled rectangle as COCO's compressed run-length code."""
    mask = np.zeros(size, np.uint8, order='F')
    mask[y : y + height, x : x + width] = 1
    code = coco_mask.encode(mask)
    return dict(size=list(size), counts=code['counts'].decode())


def annotation(
    number: int, box: list, image: int = 1, category: int = 1, **changes: Any
) -> dict:
    """With a rectangle as its mask, unless `changes` say otherwise."""
    x, y, width, height = box
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    fields = dict(
        id=number,
        image_id=image,
        category_id=category,
        bbox=box,
        area=width * height,
        iscrowd=0,
        segmentation=[corners],
    )
    return {**fields, **changes}


def sound_coco() -> dict:
    """A polygon and an RLE in the first picture, a polygon in the second."""
    return deepcopy(
        dict(
            images=[
                dict(id=i, file_name=f'{i}.png', width=WIDTH, height=HEIGHT)
                for i in (1, 2)
            ],
            annotations=[
                annotation(11, [10, 5, 40, 50]),
                annotation(
                    12, [50, 40, 40, 30], category=2, segmentation=rle(50, 40, 40, 30)
                ),
                annotation(13, [0, 0, 100, 80], image=2),
            ],
            categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES, 1)],
        )
    )


def write_pictures(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f'{number}.png')


def write_coco(path: Path, coco: dict) -> Path:
    path.write_text(json.dumps(coco))
    return path
