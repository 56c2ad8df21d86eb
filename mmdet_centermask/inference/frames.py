"""Pixels: every source becomes frames, in order; what cannot be read says why.

A damaged picture or frame is never an error here but a `Skipped` among the frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from shutil import copyfileobj
from tempfile import NamedTemporaryFile
from urllib.error import URLError
from urllib.request import urlopen

import cv2
import mmcv
import mmengine
import numpy as np

from .sources import Skipped, Source, is_remote, is_stream, suffix_of

URL_TIMEOUT = 20  # seconds without a byte
DEFAULT_FPS = 30.0  # of cameras that do not tell
# So many failures in a row are the end of a camera, which has no last frame, and of
# a video that promises more frames than it can have.
CAMERA_FAILURES, VIDEO_FAILURES = 30, 1000

Decode = Callable[[bytes], np.ndarray | None]


@dataclass(frozen=True)
class Frame:
    """One picture to look at."""

    source: Source
    pixels: np.ndarray
    """``(H, W, 3)`` uint8, BGR."""

    index: int = 0
    """Place in its video, from 0. Damaged frames count."""

    fps: float | None = None
    """Frames per second of its video; None for a picture."""

    @property
    def name(self) -> str:
        """What results of this frame are filed under, without a suffix."""
        stem = self.source.name.rpartition('.')[0] or self.source.name
        return stem if self.fps is None else f'{stem}/{self.index:06d}'


def decode_with(color_type: str = 'color', backend: str | None = 'cv2') -> Decode:
    """A decoder with the settings of a config's ``LoadImageFromFile``."""

    def decode(content: bytes) -> np.ndarray | None:
        return mmcv.imfrombytes(content, flag=color_type, backend=backend)

    return decode


def read_frames(
    sources: Iterable[Source | Skipped], decode: Decode
) -> Iterator[Frame | Skipped]:
    """Frames of all sources, one after the other."""
    for source in sources:
        if isinstance(source, Skipped):
            yield source
        elif source.is_video:
            yield from read_video(source)
        else:
            yield read_picture(source, decode)


def read_picture(source: Source, decode: Decode) -> Frame | Skipped:
    """The one frame of a file, a URL or an array."""
    try:
        if isinstance(source.where, np.ndarray):
            return Frame(source, to_bgr(source.where))
        pixels = decode(fetch(str(source.where)))
        if pixels is None:
            raise ValueError('not a picture, or damaged')
        return Frame(source, to_bgr(pixels))
    except cv2.error:
        return Skipped(source.shown, 'not a picture, or damaged')
    except (OSError, ValueError, HTTPException) as error:
        return Skipped(source.shown, reason_of(error))


def fetch(where: str) -> bytes:
    """The bytes of a file or URL; a server that falls silent raises ``OSError``."""
    if where.startswith(('http://', 'https://')):
        with urlopen(where, timeout=URL_TIMEOUT) as answer:
            return answer.read()
    return mmengine.fileio.get(where)


def reason_of(error: Exception) -> str:
    """One line for people."""
    if isinstance(error, URLError) and not hasattr(error, 'code'):
        return f'cannot be reached ({error.reason})'
    return ' '.join(str(error).split()) or type(error).__name__


def to_bgr(pixels: np.ndarray) -> np.ndarray:
    """``(H, W)``, ``(H, W, 1 | 3 | 4)`` uint8 to ``(H, W, 3)``; alpha is dropped.

    Raises:
        ValueError: It is something else; with dtype and shape.
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if (
        pixels.dtype != np.uint8
        or pixels.ndim != 3
        or pixels.shape[2] not in (1, 3, 4)
        or 0 in pixels.shape
    ):
        raise ValueError(
            f'{pixels.dtype} pixels of shape {pixels.shape} are no picture; it takes '
            'uint8 (H, W, 3) in the order blue, green, red, or (H, W) grey'
        )
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3])


def frame_count(source: Source | Skipped) -> int | None:
    """How many frames to expect, for a progress bar; None where nobody knows."""
    if isinstance(source, Skipped) or not source.is_video:
        return 1
    if not isinstance(source.where, str) or is_remote(source.where):
        return None
    capture = cv2.VideoCapture(source.where)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return count if count > 0 else 1


def read_video(source: Source) -> Iterator[Frame | Skipped]:
    """Frames of a video or camera, in order; a `Skipped` for each damaged stretch.

    OpenCV fails on a damaged frame and may succeed on the next, so that a failure
    is the end only where no more frames are promised.
    """
    where = source.where if isinstance(source.where, int) else str(source.where)
    try:
        if isinstance(where, str) and is_remote(where) and not is_stream(where):
            with downloaded(where) as path:
                yield from read_opened(source, path)
        else:
            yield from read_opened(source, where)
    except (OSError, HTTPException) as error:
        yield Skipped(source.shown, reason_of(error))


@contextmanager
def downloaded(url: str) -> Iterator[str]:
    """Path of a copy, for as long as the context lasts.

    OpenCV would jump to and fro in the file, which not every server can.
    """
    with NamedTemporaryFile(suffix=suffix_of(url)) as file:
        with urlopen(url, timeout=URL_TIMEOUT) as answer:
            copyfileobj(answer, file)
        file.flush()
        yield file.name


def read_opened(source: Source, where: int | str) -> Iterator[Frame | Skipped]:
    """:func:`read_video` of a camera, stream or file."""
    capture = cv2.VideoCapture(where)
    try:
        if capture.isOpened():
            yield from read_capture(source, capture)
        elif isinstance(where, int):
            reason = 'there is no such camera, or another program uses it'
            yield Skipped(source.shown, reason)
        else:
            yield Skipped(source.shown, 'this video cannot be opened')
    finally:
        capture.release()


def read_capture(
    source: Source, capture: cv2.VideoCapture
) -> Iterator[Frame | Skipped]:
    """:func:`read_video` of what is open."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    fps = fps if fps > 0 else DEFAULT_FPS
    promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    index, failures = 0, 0
    while True:
        ok, pixels = capture.read()
        if ok:
            if failures:
                yield damaged(source, index, failures)
                index, failures = index + failures, 0
            yield Frame(source, pixels, index, fps)
            index += 1
            continue
        failures += 1
        left = min(promised - index, VIDEO_FAILURES) if promised > 0 else None
        if failures > (CAMERA_FAILURES if left is None else left):
            break
    if promised > index:
        yield damaged(source, index, promised - index)


def damaged(source: Source, index: int, count: int) -> Skipped:
    which = f'frame {index}' if count == 1 else f'frames {index} to {index + count - 1}'
    return Skipped(source.shown, f'{which} cannot be decoded')
