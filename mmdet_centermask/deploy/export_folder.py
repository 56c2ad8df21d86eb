"""The folder that leaves the house: network, facts, and the program that uses them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..experiment import ExperimentError, walk_datasets
from . import predict
from .exportable_centermask import ExportableCenterMask
from .onnx_file import OPSET, write_onnx
from .trained import TrainedDetector

# What a test pipeline may hold beside `Resize`: no step that changes pixels.
HARMLESS = {'LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs'}


def write_folder(trained: TrainedDetector, folder: str | Path) -> None:
    """Write `model.onnx`, `model.json` and `predict.py`; none needs torch or mmdet.

    Raises:
        ExperimentError: The network or its test pipeline cannot be exported.
    """
    net = ExportableCenterMask(trained.model)
    info = model_info(trained)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_onnx(net, folder / 'model.onnx')
    text = json.dumps(info, indent=2, ensure_ascii=False)
    (folder / 'model.json').write_text(text + '\n', encoding='utf-8')
    shutil.copyfile(predict.__file__, folder / 'predict.py')


def model_info(trained: TrainedDetector) -> dict[str, Any]:
    """What `predict.py` and a reader have to know beside the weights."""
    pixels = trained.config.model.data_preprocessor
    boxes = trained.model.test_cfg.bbox
    return dict(
        name=trained.name,
        classes=trained.classes,
        **resize_of(trained.config),
        channels='RGB' if pixels.get('bgr_to_rgb') else 'BGR',
        mean=pixels.mean,
        std=pixels.std,
        pad_value=pixels.get('pad_value', 0),
        pad_size_divisor=pixels.pad_size_divisor,
        # Inside the network, for the reader.
        class_threshold=boxes.score_thr,
        nms_threshold=boxes.nms.iou_threshold,
        max_objects=boxes.max_per_img,
        mask_threshold=trained.model.roi_head.test_cfg.mask_thr_binary,
        opset=OPSET,
    )


def resize_of(cfg: Config) -> dict[str, Any]:
    """`scale` (two sides that bound the picture) or `scale_factor`, the other None.

    Raises:
        ExperimentError: The test pipeline does more to a picture than to resize it
            with its shape kept.
    """
    _, dataset = next(walk_datasets(cfg.test_dataloader.dataset, ''))
    found: dict[str, Any] = dict(scale=None, scale_factor=1.0)
    for step in dataset.pipeline:
        kind = step['type'].removeprefix('mmdet.')
        if kind == 'Resize' and step.get('keep_ratio'):
            scale = step.get('scale')
            found = dict(
                scale=[scale, scale] if isinstance(scale, int) else scale,
                scale_factor=None if scale else step['scale_factor'],
            )
        elif kind not in HARMLESS:
            raise ExperimentError(
                f'test_dataloader.dataset.pipeline has {dict(step)}, which predict.py '
                'does not do; only a Resize with keep_ratio=True can be exported'
            )
    return found
