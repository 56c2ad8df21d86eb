"""Pictures nobody sane would send: each gives a right answer or one clear error.

`FUZZ_EXAMPLES=1000 pytest tests/test_fuzz_pictures.py` looks at more of them.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmcv.transforms import Compose
from PIL import Image, ImageOps
from tiny_centermask import batch_of, picture, talkative, tiny_model, total

ODD_SIZES = ((1, 1), (1, 40), (40, 1), (4000, 10), (10, 4000), (33, 31))
SIZES = st.sampled_from(ODD_SIZES) | st.tuples(*[st.integers(1, 96)] * 2)  # (w, h)
MODES = ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16', '16-bit BGR')
META = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')


@cache  # no fixture, or hypothesis would print all of it beside a failure
def finder():
    # Few boxes: the mask branch would take most of the time and see nothing new.
    return talkative(tiny_model(test_cfg__bbox__max_per_img=5)).eval()


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('pictures')


def noise(size: tuple[int, int], channels: int, seed: int, dtype=np.uint8):
    rng = np.random.default_rng(seed)
    shape = (size[1], size[0], channels)
    return rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def png_bytes(mode: str, size: tuple[int, int], seed: int) -> tuple[bytes, np.ndarray]:
    """A PNG and, by another library or by hand, what a network should see of it.

    Returns:
        The file, and its pixels as BGR: no alpha, the high byte of 16 bits.
    """
    if mode == '16-bit BGR':
        pixels = noise(size, 3, seed, np.uint16)
        return cv2.imencode('.png', pixels)[1].tobytes(), (pixels >> 8).astype(np.uint8)
    if mode == 'I;16':
        pixels = noise(size, 1, seed, np.uint16)
        image = Image.fromarray(pixels[..., 0])
        bgr = (pixels >> 8).astype(np.uint8).repeat(3, axis=2)
    elif mode in ('RGBA', 'LA'):
        pixels = noise(size, len(mode), seed)
        image = Image.fromarray(pixels, mode)
        bgr = pixels[..., [2, 1, 0]] if mode == 'RGBA' else pixels[..., [0, 0, 0]]
    else:
        image = Image.fromarray(noise(size, 3, seed)).convert(mode)
        bgr = np.asarray(image.convert('RGB'))[..., ::-1]
    file = io.BytesIO()
    image.save(file, 'png')
    return file.getvalue(), bgr


def load(path: Path, **resize) -> dict:
    """What the configs' test pipelines make of a file."""
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='mmdet.Resize', keep_ratio=True, **resize),
        dict(type='mmdet.PackDetInputs', meta_keys=META),
    ]
    return Compose(steps)(dict(img_path=str(path), img_id=0))


def predict(*data: dict) -> list:
    batch = dict(
        inputs=[d['inputs'] for d in data],
        data_samples=[d['data_samples'] for d in data],
    )
    with torch.no_grad():
        return finder().test_step(batch)


def assert_answer(sample, height: int, width: int) -> None:
    """Finite numbers in the original picture's frame."""
    found = sample.pred_instances
    assert sample.ori_shape[:2] == (height, width)
    assert found.masks.shape == (len(found), height, width)
    assert found.masks.dtype == torch.bool
    assert torch.isfinite(found.mask_scores).all()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    low, high = found.bboxes[:, :2], found.bboxes[:, 2:]
    assert (low >= 0).all() and (high > low).all()
    # Divided by the scale factor once more, so up to a rounding.
    assert (high <= torch.tensor([width, height]) * (1 + 1e-5)).all()


@given(mode=st.sampled_from(MODES), size=SIZES, seed=st.integers(0, 99))
@example(mode='RGB', size=(1, 1), seed=0)
@example(mode='L', size=(4000, 10), seed=0)
@example(mode='RGBA', size=(10, 4000), seed=0)
@example(mode='I;16', size=(33, 31), seed=0)
def test_kinds_of_pixels_and_sizes(folder, mode, size, seed):
    content, bgr = png_bytes(mode, size, seed)
    (folder / 'any.png').write_bytes(content)
    data = load(folder / 'any.png', scale_factor=1.0)
    np.testing.assert_array_equal(data['inputs'], bgr.transpose(2, 0, 1))
    assert_answer(predict(data)[0], size[1], size[0])


@given(size=SIZES)
@example(size=(1, 1))
@example(size=(4000, 10))
@example(size=(10, 4000))
def test_resized_as_the_configs_do(folder, size):
    (folder / 'resized.png').write_bytes(png_bytes('RGB', size, 0)[0])
    # COCO's scale; smaller for small pictures, or one pixel would become 800 x 800.
    scale = (1333, 800) if max(size) > 1000 else (160, 96)
    data = load(folder / 'resized.png', scale=scale)
    assert_answer(predict(data)[0], size[1], size[0])


@given(size=SIZES, orientation=st.integers(0, 9))
def test_exif_rotation(folder, size, orientation):
    image = Image.fromarray(noise(size, 3, 0))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(folder / 'turned.jpg', exif=exif, quality=95)
    turned = ImageOps.exif_transpose(Image.open(folder / 'turned.jpg'))
    data = load(folder / 'turned.jpg', scale_factor=1.0)
    assert data['inputs'].shape[1:] == turned.size[::-1]
    # The decoders round differently, but a wrong turn of noise is far off.
    seen = data['inputs'].numpy()[::-1].transpose(1, 2, 0).astype(float)
    assert np.abs(seen - np.asarray(turned.convert('RGB'))).mean() < 3
    assert_answer(predict(data)[0], turned.height, turned.width)


@given(
    kind=st.sampled_from(['jpg', 'png', 'webp', 'bmp']),
    kept=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
)
@example(kind='jpg', kept=0.0, flips=[])
@example(kind='jpg', kept=0.5, flips=[])
@example(kind='png', kept=0.5, flips=[])
@example(kind='jpg', kept=1.0, flips=[(0.0, 0)])
def test_damaged_files(folder, kind, kept, flips):
    content = cv2.imencode(f'.{kind}', noise((48, 40), 3, 0))[1].tobytes()
    content = bytearray(content[: round(kept * len(content))])
    for place, value in flips:
        if content:
            content[int(place * (len(content) - 1))] = value
    path = folder / f'damaged.{kind}'
    path.write_bytes(content)
    try:
        data = load(path, scale_factor=1.0)
    except ValueError as error:
        assert str(error).startswith(f'{path}: empty, damaged or no picture')
        return
    # OpenCV makes up what is missing; the answer is one for the picture it gives.
    height, width = data['inputs'].shape[1:]
    if height * width < 500_000:  # damage may also hit the size
        assert_answer(predict(data)[0], height, width)


@settings(max_examples=max(2, settings.default.max_examples // 10))
@given(size=st.tuples(st.integers(1, 12), st.integers(1, 12)), seed=st.integers(0, 99))
def test_huge_batch_of_tiny_pictures(size, seed):
    pictures = [picture(size[1], size[0], (), seed=seed + i) for i in range(64)]
    data = [dict(inputs=p, data_samples=s) for p, s in pictures]
    together = predict(*data)
    for i in (0, 31, 63):
        (alone,) = predict(data[i])
        ours, single = together[i].pred_instances, alone.pred_instances
        assert len(ours) == len(single)
        torch.testing.assert_close(ours.bboxes, single.bboxes, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(ours.scores, single.scores, atol=1e-4, rtol=1e-4)


CORNERS = st.floats(-300, 300, width=32)
BOXES = st.lists(
    st.tuples(CORNERS, CORNERS, st.floats(1, 400), st.floats(1, 400)), max_size=6
)


@given(size=st.tuples(st.integers(1, 96), st.integers(1, 96)), boxes=BOXES)
@example(size=(64, 64), boxes=[])
@example(size=(64, 64), boxes=[(200, 200, 30, 30)])
@example(size=(64, 64), boxes=[(-100, -100, 300, 300)])
@example(size=(1, 1), boxes=[(0, 0, 1, 1)])
def test_training_on_boxes_anywhere(size, boxes):
    boxes = [(x, y, x + w, y + h) for x, y, w, h in boxes]
    model = tiny_model().train()
    inputs, samples = batch_of(model, picture(size[1], size[0], boxes), training=True)
    losses = model.loss(inputs, samples)
    loss = total(losses)
    assert torch.isfinite(loss), losses
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all(), name
