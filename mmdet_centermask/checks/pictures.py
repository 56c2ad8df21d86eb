"""Are the picture files there, whole, and of the size that the JSON states?

Reads headers and the last bytes; only what looks cut off is decoded, or everything
if asked to.
"""

from __future__ import annotations

import os
import os.path as osp
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import mmcv
import numpy as np
from PIL import Image

from .annotation_table import AnnotationTable, Track
from .finding import Finding, Severity

TAIL = 64  # bytes that hold the end mark and the padding some programs add
END_MARKS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82', 'GIF': b';'}
EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height

# What can be wrong with a picture -> how bad, and what to do.
DEFECTS: dict[str, tuple[Severity, str]] = {
    'missing picture file': (
        'error',
        'is data_prefix the right folder, and file_name spelt as the file is?',
    ),
    'unreadable picture': ('error', 'replace the file; training stops at it'),
    'truncated picture': (
        'error',
        'copy or download it again; OpenCV would fill the rest with grey',
    ),
    'picture rotated by its EXIF tag': (
        'error',
        'the annotations are of the unrotated picture, which mmcv turns on loading: '
        'remove the tag (exiftool -Orientation= FILE)',
    ),
    'picture of another size than the JSON states': (
        'error',
        'was it resized after annotating? correct width and height, or the file',
    ),
}
MISSING, UNREADABLE, TRUNCATED, ROTATED, RESIZED = DEFECTS


def check_pictures(
    table: AnnotationTable,
    folder: str,
    track: Track,
    decode: bool = False,
    rows: Sequence[int] | None = None,
) -> list[Finding]:
    """Check the files of `rows` of the images (default: all) in `folder`.

    Args:
        table: Says names and sizes.
        folder: What file names are relative to.
        track: Shows progress.
        decode: Decode all of every picture, not headers alone.
        rows: Images to look at.
    """
    rows = range(len(table.images)) if rows is None else rows
    named = [row for row in rows if table.file_name(row)]
    check = partial(row_defect, table, folder, decode)
    defects: dict[str, list[int]] = {name: [] for name in DEFECTS}
    # The filter here and not in the threads: it is one for all of them.
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)
        found = pool.map(check, track(named, 'pictures'))
        for row, defect in zip(named, found, strict=True):
            if defect is not None:
                defects[defect].append(row)
    return [
        Finding(
            DEFECTS[name][0],
            name,
            DEFECTS[name][1],
            'image',
            [table.file_name(row) for row in bad],
            bad,
        )
        for name, bad in defects.items()
        if bad
    ]


def row_defect(
    table: AnnotationTable, folder: str, decode: bool, row: int
) -> str | None:
    path = osp.join(folder, table.file_name(row))
    return picture_defect(path, table.image_sizes[row], decode)


def picture_defect(path: str, size: np.ndarray, decode: bool) -> str | None:
    """Name the defect of a picture (a key of `DEFECTS`), or return None.

    Args:
        path: The file.
        size: Width and height in the JSON, NaN where unknown.
        decode: Decode all of it.
    """
    if not osp.isfile(path):
        return MISSING
    try:
        with Image.open(path) as picture:
            found, sideways = picture.size, is_sideways(picture)
            if decode or not has_end(path, picture.format):
                try:
                    picture.load()
                except (OSError, SyntaxError, ValueError, EOFError):
                    return TRUNCATED
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return size_defect(*opencv_size(path), size)
    return size_defect(found, sideways, size)


def is_sideways(picture: Image.Image) -> bool:
    """Whether mmcv, which follows the EXIF tag, turns the picture by 90 degrees."""
    if picture.format == 'PNG' and 'exif' not in picture.info:
        return False  # or Pillow would decode all of it to find out
    return picture.getexif().get(EXIF_ORIENTATION) in SIDEWAYS


def has_end(path: str, kind: str | None) -> bool:
    """Whether the file closes as its format does; True where that is not known.

    False is no proof: some programs append data of their own.
    """
    mark = END_MARKS.get(kind or '')
    if mark is None:
        return True
    with open(path, 'rb') as file:
        file.seek(max(0, osp.getsize(path) - TAIL))
        return file.read().rstrip(b'\0\r\n ').endswith(mark)


def opencv_size(path: str) -> tuple[tuple[int, int] | None, bool]:
    """Size of a picture that Pillow does not know and mmcv may."""
    try:
        pixels = mmcv.imread(path)
    except Exception:  # whatever the decoder says, training could not read it
        pixels = None
    return (None if pixels is None else (pixels.shape[1], pixels.shape[0])), False


def size_defect(
    found: tuple[int, int] | None, sideways: bool, stated: np.ndarray
) -> str | None:
    """Compare the size in the file, before any rotation, with the JSON's."""
    if found is None:
        return UNREADABLE
    if not np.isfinite(stated).all():
        return None
    loaded = found[::-1] if sideways else found
    if tuple(stated) == loaded:
        return None
    return ROTATED if tuple(stated) == found else RESIZED
