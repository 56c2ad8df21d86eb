"""The picture that the goldens were made with, and the two cuts of it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np

SIZE = (320, 288)  # width, height
SHA256 = 'd2865cc1b16cf7cacb9460b07c0e8e7ae22f12f7c7160ba731d9318048fed224'

# `a` is whole and a multiple of 32; `b` has to be padded on both sides.
CASES = {'a': np.s_[:, :], 'b': np.s_[17:267, 11:312]}


def parity_picture(path: str | Path | None = None) -> np.ndarray:
    """The picture, uint8 `(288, 320, 3)`, BGR.

    Args:
        path: A `.npy` file of it. Without, it is made from NASA's portrait of Eileen
            Collins (public domain), which comes with scikit-image.

    Raises:
        ValueError: It is not the picture that the goldens belong to.
        ModuleNotFoundError: It has to be made and scikit-image is missing.
    """
    picture = _make() if path is None else np.load(path)
    digest = sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()
    if digest != SHA256:
        origin = 'made from scikit-image' if path is None else str(path)
        raise ValueError(
            f'{origin}: another picture than the goldens were made with '
            f'(sha256 {digest[:12]}… where {SHA256[:12]}… is wanted)'
        )
    return picture


def _make() -> np.ndarray:
    # Not requirements of the package: only this check needs them.
    from PIL import Image
    from skimage.data import astronaut

    rgb = Image.fromarray(astronaut()).resize(SIZE, Image.Resampling.BILINEAR)
    return np.asarray(rgb)[..., ::-1]
