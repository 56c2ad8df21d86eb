"""A picture that cannot be read is named in the error.

OpenCV says `!buf.empty()` of an empty file and leaves the user with 100,000 others to
look through. The stock transform is what every pipeline, `DetInferencer` and
MMDetection's tools look for, by its name or its class, so it cannot be another one: it
gets its error message instead.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from mmcv.transforms import LoadImageFromFile

Transform = Callable[[LoadImageFromFile, dict], dict | None]


def name_images_in_errors() -> None:
    """Have `LoadImageFromFile` raise ValueError with the file, for any bad picture."""
    LoadImageFromFile.transform = naming(LoadImageFromFile.transform)


def naming(transform: Transform) -> Transform:
    """`transform`, but what it raises names `results['img_path']`."""

    @wraps(transform)
    def named(self: LoadImageFromFile, results: dict) -> dict | None:
        try:
            return transform(self, results)
        except OSError:
            raise  # names the file
        except Exception as error:
            raise ValueError(
                f'{results["img_path"]}: empty, damaged or no picture '
                f'({str(error).strip()})'
            ) from error

    return named
