"""What a person may hand to the inferencer, spelled out: one `Source` each.

A folder, a pattern or a list becomes the pictures and videos in it. Nothing is opened
here; what leads nowhere comes out as `Skipped`, with the reason.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from itertools import count
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
from mmdet.apis.det_inferencer import IMG_EXTENSIONS

VIDEO_EXTENSIONS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')


class Source(NamedTuple):
    """One picture, video or camera."""

    name: str
    """Unique among the inputs; results are filed under it."""

    where: str | int | np.ndarray
    """A path or URL, the number of a camera, or the pixels themselves."""

    @property
    def shown(self) -> str:
        """How to speak of it to people."""
        return self.where if isinstance(self.where, str) else self.name

    @property
    def is_video(self) -> bool:
        """Whether it gives many frames: a video, a network stream, a camera."""
        if isinstance(self.where, str):
            return is_stream(self.where) or suffix_of(self.where) in VIDEO_EXTENSIONS
        return isinstance(self.where, int)


class Skipped(NamedTuple):
    """Something that was asked for and could not be had."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f'{self.name}: {self.reason}'


Input = str | PathLike | int | np.ndarray | Source | Skipped


def find_sources(inputs: Input | Sequence[Input]) -> list[Source | Skipped]:
    """Expand folders and patterns, in order.

    Args:
        inputs: A picture, a video, a folder of them (not what lies deeper), a pattern
            (`**` goes deeper), a URL, the number of a camera (an int, or digits that
            no file is called), an array, or a list of these.

    Returns:
        The sources. A `Skipped` for each input that leads to none, and one for each
        folder in which files of other kinds lie.
    """
    if isinstance(inputs, (str, PathLike, int, np.ndarray, Source, Skipped)):
        inputs = [inputs]
    found: list[Source | Skipped] = []
    for number, item in enumerate(inputs):
        found.extend(expand(item, number))
    return with_unique_names(found)


def expand(item: Input, number: int) -> Iterable[Source | Skipped]:
    """The sources of one input, which is the `number`-th of a list."""
    if isinstance(item, (Source, Skipped)):
        return [item]
    if isinstance(item, np.ndarray):
        return [Source(f'array_{number:06d}', item)]
    if isinstance(item, int):
        return [Source(f'camera_{item}', item)]
    text = str(item)
    if is_remote(text):
        return [Source(name_of_url(text), text)]
    path = Path(text).expanduser()
    if path.is_dir():
        return expand_folder(path)
    if path.is_file():
        return [Source(path.name, str(path))]
    if text.isdecimal():
        return expand(int(text), number)
    if glob.has_magic(text):
        return expand_pattern(str(path))
    return [Skipped(text, 'there is no such file')]


def expand_folder(folder: Path) -> Iterable[Source | Skipped]:
    """Pictures and videos of `folder`, by name."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and not hidden(p))
    known = [p for p in files if is_known(p)]
    others = [p.name for p in files if not is_known(p)]
    yield from (Source(p.name, str(p)) for p in known)
    if not known:
        yield Skipped(str(folder), 'no picture or video in this folder')
    if others:
        names = ', '.join(others[:3]) + (', ...' if len(others) > 3 else '')
        yield Skipped(str(folder), f'neither picture nor video: {names}')


def expand_pattern(pattern: str) -> Iterable[Source | Skipped]:
    """Pictures and videos that `pattern` matches, named from its fixed part on."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    matches = [Path(p) for p in sorted(glob.glob(pattern, recursive=True))]
    known = [p for p in matches if p.is_file() and is_known(p)]
    yield from (Source(p.relative_to(root).as_posix(), str(p)) for p in known)
    if not known:
        yield Skipped(pattern, 'no picture or video matches')


def with_unique_names(found: list[Source | Skipped]) -> list[Source | Skipped]:
    """Number the sources that would be filed under one name: `a.jpg`, `a-2.png`."""
    taken: set[str] = set()
    result: list[Source | Skipped] = []
    for item in found:
        if isinstance(item, Source):
            path = PurePosixPath(item.name)
            base = stem = str(path.with_suffix(''))
            for number in count(2):
                if stem not in taken:
                    break
                stem = f'{base}-{number}'
            taken.add(stem)
            item = item._replace(name=stem + path.suffix)
        result.append(item)
    return result


def hidden(path: Path) -> bool:
    """What file browsers leave behind, `.DS_Store` and `._a.jpg`."""
    return path.name.startswith('.')


def is_known(path: Path) -> bool:
    return path.suffix.lower() in (*IMG_EXTENSIONS, *VIDEO_EXTENSIONS)


def is_remote(text: str) -> bool:
    return '://' in text


def is_stream(text: str) -> bool:
    """Whether `text` is an address that only a video player understands."""
    return text.startswith(('rtsp://', 'rtmp://', 'udp://', 'tcp://'))


def suffix_of(text: str) -> str:
    path = urlsplit(text).path if is_remote(text) else text
    return PurePosixPath(path).suffix.lower()


def name_of_url(url: str) -> str:
    """The last part of the path, or the host where there is no path."""
    split = urlsplit(url)
    return PurePosixPath(unquote(split.path)).name or split.hostname or 'stream'
