"""COCO files: results, as COCO's evaluation reads them, and annotations to correct."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from ..experiment import ExperimentError
from .frames import Frame
from .instances import mask_of, rles_of, scores_of, xywh_of
from .json_stream import JsonList
from .mask_polygons import polygons_of


class CocoIds:
    """Ids of pictures and classes: counted from 1, or those of a COCO file.

    Args:
        classes: Names, in the order of the labels.
        ann_file: Take the ids from this file, where pictures are known by the last
            part of their name and classes by their name.

    Raises:
        ExperimentError: The file is not there, is no COCO file, or lacks a class.
    """

    def __init__(self, classes: Sequence[str], ann_file: str | None = None) -> None:
        self.images: list[dict[str, Any]] = []
        self.known = None
        self.categories = [dict(id=i, name=name) for i, name in enumerate(classes, 1)]
        if ann_file is not None:
            content = read_coco(ann_file)
            self.known = {Path(i['file_name']).stem: i['id'] for i in content['images']}
            ids = {c['name']: c['id'] for c in content['categories']}
            for category in self.categories:
                if category['name'] not in ids:
                    raise ExperimentError(
                        f'ann_file={ann_file!r} has no class {category["name"]!r}, '
                        'which the model knows'
                    )
                category['id'] = ids[category['name']]

    def of_image(self, frame: Frame) -> int | None:
        """Register a picture; None where the COCO file does not know it."""
        number = len(self.images) + 1
        if self.known is not None:
            known = self.known.get(Path(frame.name).name)
            if known is None:
                return None
            number = known
        height, width = frame.pixels.shape[:2]
        image = dict(id=number, file_name=file_name_of(frame), width=width)
        self.images.append(dict(image, height=height))
        return number

    def of_classes(self, instances: InstanceData) -> list[int]:
        return [self.categories[label]['id'] for label in instances.labels]


def read_coco(path: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8'))
        if not {'images', 'categories'} <= content.keys():
            raise ValueError('no images and categories')
    except (OSError, ValueError, AttributeError) as error:
        raise ExperimentError(
            f'ann_file={path!r} cannot be read as a COCO file: {error}'
        ) from error
    return content


def file_name_of(frame: Frame) -> str:
    return frame.source.name if frame.fps is None else f'{frame.name}.jpg'


class CocoResultsWriter:
    """`coco_results.json`, and `coco_images.json` with the pictures and classes.

    The second is left out where the ids come from a COCO file, which has both. The
    score is the mask's.
    """

    def __init__(
        self, out_dir: Path, classes: Sequence[str], ann_file: str | None = None
    ) -> None:
        self.ids = CocoIds(classes, ann_file)
        self.results = JsonList(out_dir / 'coco_results.json')
        self.images_path = None if ann_file else out_dir / 'coco_images.json'

    def write(self, frame: Frame, instances: InstanceData) -> str | None:
        """Add one picture; says so where its id is unknown."""
        number = self.ids.of_image(frame)
        if number is None:
            return 'not in the COCO file, so not in coco_results.json'
        fields = dict(
            category_id=self.ids.of_classes(instances),
            bbox=xywh_of(instances),
            score=[round(float(score), 5) for score in scores_of(instances)],
        )
        if 'masks' in instances:
            fields['segmentation'] = rles_of(instances)
        for values in zip(*fields.values(), strict=True):
            row = dict(zip(fields, values, strict=True))
            self.results.append(dict(image_id=number, **row))
        return None

    def close(self) -> None:
        self.results.close()
        if self.images_path is not None:
            images = JsonList(self.images_path, 'images')
            for image in self.ids.images:
                images.append(image)
            images.close(categories=self.ids.categories, annotations=[])


class CocoPolygonsWriter:
    """`coco_annotations.json`: predictions as if a person had drawn them."""

    def __init__(
        self, out_dir: Path, classes: Sequence[str], ann_file: str | None = None
    ) -> None:
        self.ids = CocoIds(classes, ann_file)
        self.annotations = JsonList(out_dir / 'coco_annotations.json', 'annotations')
        self.count = 0

    def write(self, frame: Frame, instances: InstanceData) -> str | None:
        """Add one picture; says so where its id is unknown."""
        number = self.ids.of_image(frame)
        if number is None:
            return 'not in the COCO file, so not in coco_annotations.json'
        for i, category in enumerate(self.ids.of_classes(instances)):
            polygons = polygons_of(mask_of(instances, i))
            if not polygons:
                continue
            rle = rles_of(instances[i])[0]
            self.count += 1
            self.annotations.append(
                dict(
                    id=self.count,
                    image_id=number,
                    category_id=category,
                    segmentation=[p.round(2).ravel().tolist() for p in polygons],
                    bbox=coco_mask.toBbox(rle).tolist(),
                    area=int(coco_mask.area(rle)),
                    iscrowd=0,
                    score=round(float(scores_of(instances)[i]), 5),
                )
            )
        return None

    def close(self) -> None:
        self.annotations.close(images=self.ids.images, categories=self.ids.categories)
