"""Is it COCO JSON? If not, what does it look like?

mmdet meets a foreign file with a stack trace out of pycocotools. `why_not_coco` looks
at bytes only, so that it costs nothing before a run; `read_annotations` parses.
"""

from __future__ import annotations

import json
import mmap
import os
import re
from pathlib import Path
from typing import Any

HEAD = 65536  # bytes that show what a file is
CATEGORY_BYTES = 2**24  # LVIS' 1203 categories with their synonyms take half a MB

# First bytes of what is no text at all.
BINARY = {
    b'\x1f\x8b': 'is gzip-compressed; unpack it: gunzip FILE',
    b'PK\x03\x04': 'is a zip archive; unpack it',
    b'\x80': 'looks like a Python pickle; those are not opened here, write COCO JSON',
    b'\xff\xfe': 'is UTF-16; save it as UTF-8',
    b'\xfe\xff': 'is UTF-16; save it as UTF-8',
    b'\xef\xbb\xbf': 'begins with a byte-order mark; save it as UTF-8 without one',
    b'\x89PNG': 'is a PNG picture; ann_file names the JSON',
    b'\xff\xd8': 'is a JPEG picture; ann_file names the JSON',
}
# JSON objects of other tools, by a key that COCO does not have.
FOREIGN_KEYS = {
    b'"shapes"': 'looks like labelme, one file a picture; labelme2coco converts',
    b'"data_list"': "looks like OpenMMLab's own format, not COCO",
    b'"_via_img_metadata"': 'looks like a project of the VGG Image Annotator; '
    'export it as COCO',
    b'"regions"': 'looks like the VGG Image Annotator; export it as COCO',
    b'"detection"': "looks like MMDetection's JSON lines (ODVG), not COCO",
}
YOLO_LINE = re.compile(rb'\s*\d+(\s+[-+.\deE]+){4,}\s*')


class AnnotationFileError(ValueError):
    """An annotation file that is no COCO JSON; one line says what it looks like."""


def why_not_coco(path: str | os.PathLike) -> str | None:
    """Say why `path` cannot be COCO JSON, or return None. Parses nothing.

    The answer completes a sentence that begins with the file's name.
    """
    if os.path.isdir(path):
        return 'is a folder; ann_file names the JSON'
    if os.path.getsize(path) == 0:
        return 'is empty'
    with (
        open(path, 'rb') as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        head = data[:HEAD]
        for magic, answer in BINARY.items():
            if head.startswith(magic):
                return answer
        head = head.lstrip()
        if not head.startswith(b'{'):
            return foreign_text(head)
        missing = [k for k in ('images', 'categories') if data.find(key(k)) < 0]
        if missing:
            return foreign_object(head, missing)
        if not data[-HEAD:].rstrip().endswith(b'}'):
            return 'ends in the middle: copy or download it again'
    return None


def key(name: str) -> bytes:
    return f'"{name}"'.encode()


def foreign_text(head: bytes) -> str:
    """Name what does not begin with `{`. `head` has no white space in front."""
    if not head:
        return 'is empty'
    if head.startswith(b'['):
        if b'"score"' in head:
            return 'is a list of detections (COCO results), not a data set'
        return (
            'is a JSON list; COCO is an object with "images", "annotations" and '
            '"categories"'
        )
    if head.startswith(b'<'):
        return 'is XML, as Pascal VOC and CVAT write; export it as COCO'
    if YOLO_LINE.fullmatch(head.splitlines()[0]):
        return 'looks like YOLO labels, one file a picture; convert them to COCO'
    return 'is no JSON'


def foreign_object(head: bytes, missing: list[str]) -> str:
    """Name the JSON object that has not got the `missing` keys."""
    for mark, answer in FOREIGN_KEYS.items():
        if mark in head:
            return answer
    absent = ' and '.join(f'"{name}"' for name in missing)
    return f'is JSON without {absent}, which COCO has'


def read_annotations(path: str | os.PathLike) -> dict[str, Any]:
    """Parse `path`; `images`, `annotations` and `categories` are lists of dicts.

    A file without `annotations`, as of a test set, gets an empty list.

    Raises:
        AnnotationFileError: It is no COCO JSON.
    """
    reason = why_not_coco(path)
    if reason is not None:
        raise AnnotationFileError(f'{path} {reason}')
    try:
        coco = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise AnnotationFileError(f'{path} is broken JSON: {error}') from error
    if not isinstance(coco, dict):
        raise AnnotationFileError(f'{path} is no JSON object')
    coco.setdefault('annotations', [])
    for name in ('images', 'annotations', 'categories'):
        require_objects(path, name, coco.get(name))
    return unfold_segments(path, coco)


def require_objects(path: Any, name: str, items: Any) -> None:
    """Refuse `items` that are not a list of dicts."""
    if not isinstance(items, list):
        kind = type(items).__name__
        raise AnnotationFileError(f'{path}: "{name}" is a {kind}, not a list')
    for i, item in enumerate(items):
        if not isinstance(item, dict):
            raise AnnotationFileError(
                f'{path}: {name}[{i}] is {item!r:.40}, not an object'
            )


def unfold_segments(path: Any, coco: dict[str, Any]) -> dict[str, Any]:
    """One annotation a segment where the file is panoptic, as mmdet reads it."""
    annotations = coco['annotations']
    if not annotations or 'segments_info' not in annotations[0]:
        return coco
    segments = []
    for annotation in annotations:
        infos = annotation.get('segments_info')
        require_objects(path, 'segments_info', infos)
        image = annotation.get('image_id')
        # Segment ids are unique in their picture only.
        segments += [
            dict(info, image_id=image, id=f'{image}/{info.get("id")}') for info in infos
        ]
    return dict(coco, annotations=segments, panoptic=True)


def read_categories(path: str | os.PathLike) -> list[dict[str, Any]] | None:
    """The `categories` of a file that is too large to parse on the way.

    Returns None where they cannot be told from the rest.
    """
    with (
        open(path, 'rb') as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        start = data.find(b'[', data.rfind(key('categories')))
        text = data[start : start + CATEGORY_BYTES].decode('utf-8', 'ignore')
    try:
        categories, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return None
    named = all(isinstance(c, dict) and {'id', 'name'} <= c.keys() for c in categories)
    return categories if categories and named else None
