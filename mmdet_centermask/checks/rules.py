"""The rules for annotations, as a table: how bad a defect is, and what mends it.

What is called dropped is what `mmdet.datasets.CocoDataset` leaves out of training;
COCO's evaluation still counts such an object, as missed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from . import defects
from .annotation_table import AnnotationTable, identity
from .defects import Rows
from .finding import Finding, Severity, Subject

# Where a rule matters; elsewhere what it finds is only worth knowing.
Use = Literal['always', 'masks', 'polygons', 'evaluation']


@dataclass(frozen=True)
class Rule:
    """A defect, and what finds it.

    Attributes:
        severity: Where it matters.
        what: The defect.
        find: Rows that have it, the worst first.
        mend: What to do about it.
        subject: What the rows are.
        matters: `masks`, where masks are read; `polygons`, where nothing else is;
            `evaluation`, where COCO's evaluation reads the file.
    """

    severity: Severity
    what: str
    find: Callable[[AnnotationTable], Rows]
    mend: str
    subject: Subject = 'annotation'
    matters: Use = 'always'


def apply_rules(table: AnnotationTable, uses: set[str]) -> list[Finding]:
    """What the rules find in `table`, of a file that has these uses (see `Use`)."""
    findings = []
    for rule in RULES:
        applies = rule.matters in {'always', *uses}
        if rule.matters == 'polygons' and not applies:
            continue
        if rule.matters == 'masks' and table.panoptic:
            continue
        rows = rule.find(table)
        if rows.size:
            severity = rule.severity if applies else 'info'
            names = names_of(table, rule.subject, rows)
            places = rows.tolist()
            findings.append(
                Finding(severity, rule.what, rule.mend, rule.subject, names, places)
            )
    return findings


def names_of(table: AnnotationTable, subject: Subject, rows: Rows) -> list[Hashable]:
    """How a report calls the rows: by their id, or by their place in the file."""
    lists: dict[str, Sequence[dict]] = {
        'annotation': table.annotations,
        'image': table.images,
        'category': table.categories,
    }
    items = lists[subject]
    ids = [identity(items[row].get('id')) for row in rows]
    return [
        f'number {row}' if i is None else i for i, row in zip(ids, rows, strict=True)
    ]


RULES: tuple[Rule, ...] = (
    Rule(
        'error',
        'image without id, file_name, width or height',
        defects.incomplete_images,
        'write all four into every image; sizes are positive numbers of pixels',
        'image',
    ),
    Rule(
        'error',
        'annotation without id, image_id, category_id, bbox or area',
        defects.incomplete,
        'write all five; bbox is [x, y, width, height] in pixels, area a number',
    ),
    Rule(
        'error',
        'annotation without iscrowd',
        defects.without_crowd_flag,
        'write "iscrowd": 0; COCO\'s evaluation stops without it',
        matters='evaluation',
    ),
    Rule(
        'error',
        'NaN or infinity in bbox, area or segmentation',
        defects.not_finite,
        'correct or remove it; one such box turns every weight to NaN',
    ),
    Rule(
        'error',
        'negative width or height',
        defects.negative,
        'bbox is [x, y, width, height]; is yours made from corners in another order?',
    ),
    Rule(
        'error',
        'image id used before',
        defects.repeated_images,
        'number the images anew; annotations of both go to the last',
        'image',
    ),
    Rule(
        'error',
        'annotation id used before',
        defects.repeated_annotations,
        'number the annotations anew; mmdet refuses the file',
    ),
    Rule(
        'error',
        'category id used before',
        defects.repeated_categories,
        'number the categories anew',
        'category',
    ),
    Rule(
        'error',
        'category name used before',
        defects.repeated_names,
        'make one category of both; each takes a label of its own',
        'category',
    ),
    Rule(
        'warning',
        'file_name used before',
        defects.repeated_files,
        'join the annotations under one image; each sees the other as background',
        'image',
    ),
    Rule(
        'warning',
        'annotation of an unknown image',
        defects.unknown_image,
        'add the image or remove the annotation; it is ignored',
    ),
    Rule(
        'warning',
        'annotation of an unknown category',
        defects.unknown_category,
        'add the category or remove the annotation; it is ignored',
    ),
    Rule(
        'error',
        'box of zero area',
        defects.flat_boxes,
        'draw the box again or remove it; it is dropped',
    ),
    Rule(
        'warning',
        'box thinner than a pixel',
        defects.thin_boxes,
        'are the coordinates pixels, not shares of the picture? it is dropped',
    ),
    Rule(
        'warning',
        'area of zero or less beside a box',
        defects.without_area,
        'write the area of the mask in square pixels; the object is dropped',
    ),
    Rule(
        'warning',
        'box wholly outside the picture',
        defects.boxes_outside,
        'correct or remove it; it is dropped. Was the picture resized or rotated?',
    ),
    Rule(
        'warning',
        'box reaches out of the picture',
        defects.boxes_across,
        'clip it; is it x, y, width, height, and not two corners?',
    ),
    Rule(
        'error',
        'box without a mask',
        defects.box_only,
        'add the mask or remove the object; reading masks stops here',
        matters='masks',
    ),
    Rule(
        'error',
        'segmentation of no known form',
        defects.unknown_masks,
        'write polygons [[x1, y1, x2, y2, ...], ...] or RLE {"size", "counts"}',
        matters='masks',
    ),
    Rule(
        'error',
        'polygon of fewer than 3 points',
        defects.short_polygons,
        'remove it, or the object if it has no other; it is dropped, and evaluation '
        'stops at it or takes it for a box',
        matters='masks',
    ),
    Rule(
        'warning',
        'polygon with an odd number of coordinates',
        defects.odd_polygons,
        'a number is missing: draw it again; the polygon is dropped',
        matters='masks',
    ),
    Rule(
        'warning',
        'mask of zero area',
        defects.flat_masks,
        'draw it again or remove the object; there is nothing to learn',
        matters='masks',
    ),
    Rule(
        'error',
        'RLE that does not add up to its size',
        defects.broken_codes,
        'encode the mask again (pycocotools.mask.encode, Fortran order)',
        matters='masks',
    ),
    Rule(
        'error',
        'RLE of another size than the picture',
        defects.codes_of_another_size,
        'size is [height, width] of the picture; encode the mask at that size',
        matters='masks',
    ),
    Rule(
        'error',
        'RLE mask where only polygons are read',
        defects.codes_without_crowd,
        'poly2mask=True in LoadAnnotations; the object is dropped',
        matters='polygons',
    ),
    Rule(
        'warning',
        'mask outside its box',
        defects.masks_outside_box,
        'compute the box from the mask; what is outside is not learnt',
        matters='masks',
    ),
    Rule(
        'warning',
        'mask outside the picture',
        defects.masks_outside_picture,
        'clip it. Was the picture resized or rotated?',
        matters='masks',
    ),
    Rule(
        'info',
        'crowd region',
        defects.crowds,
        'fine: not learnt, and detections in it do not count',
    ),
    Rule(
        'info',
        'image without an annotation',
        defects.empty_images,
        'fine: background; filter_cfg=dict(filter_empty_gt=True) leaves it out',
        'image',
    ),
    Rule(
        'info',
        'gap before a category id',
        defects.category_gaps,
        "fine: labels follow the order of the file's categories, not their ids",
        'category',
    ),
)
