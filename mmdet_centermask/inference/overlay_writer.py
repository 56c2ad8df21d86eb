"""Overlays on disk: a picture for a picture, an mp4 for a video."""

from __future__ import annotations

from pathlib import Path

import cv2
import mmcv
import numpy as np

from .frames import Frame

# The one codec for mp4 that every build of OpenCV brings along.
CODEC = 'mp4v'
LOSSLESS = ('.png', '.bmp', '.tif', '.tiff', '.ppm', '.pgm')


class OverlayWriter:
    """`NAME.jpg` (`.png` where the input was lossless) or `NAME.mp4` in a folder.

    A video has the frame rate of its source and a frame for each of its frames: where
    one could not be decoded, the last one stays.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.video: VideoFile | None = None

    def write(self, frame: Frame, drawn: np.ndarray) -> str | None:
        """Add the overlay `drawn` ``(H, W, 3)``, BGR; says so where it cannot."""
        if frame.fps is None:
            suffix = Path(frame.source.name).suffix.lower()
            suffix = '.png' if suffix in LOSSLESS else '.jpg'
            mmcv.imwrite(drawn, str(self.folder / f'{frame.name}{suffix}'))
            return None
        if self.video is None or self.video.frame.source is not frame.source:
            self.close()
            path = self.folder / f'{Path(frame.name).parent}.mp4'
            self.video = VideoFile(path, frame, frame.fps)
        return self.video.write(frame, drawn)

    def close(self) -> None:
        """End the video that is being written, if there is one."""
        if self.video is not None:
            self.video.close()
            self.video = None


class VideoFile:
    """One mp4.

    Args:
        path: Replaced if it exists; folders are made.
        frame: The first; its size is that of the file.
        fps: Frames per second.
    """

    def __init__(self, path: Path, frame: Frame, fps: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.frame = path, frame
        self.size = frame.pixels.shape[1::-1]
        self.written = 0
        self.last: np.ndarray | None = None
        self.writer = cv2.VideoWriter(
            str(path), cv2.VideoWriter.fourcc(*CODEC), fps, self.size
        )

    def write(self, frame: Frame, drawn: np.ndarray) -> str | None:
        """Add a frame, and before it the last one for each that is missing."""
        if not self.writer.isOpened():
            return f'OpenCV cannot write {self.path} (codec {CODEC})'
        if drawn.shape[1::-1] != self.size:
            drawn = cv2.resize(drawn, self.size)
        missing = frame.index - self.written
        for _ in range(missing):
            self.writer.write(drawn if self.last is None else self.last)
        self.writer.write(drawn)
        self.written, self.last = frame.index + 1, drawn
        return None

    def close(self) -> None:
        self.writer.release()
