"""A checkpoint, pictures and videos for the inferencer's tests, as real files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from tiny_centermask import CONFIGS, talkative, tiny_config, tiny_model

from mmdet_centermask.inference.frames import Frame
from mmdet_centermask.inference.sources import Source
from mmdet_centermask.models.rle_masks import RLEMasks

CLASSES = ('disc', 'ring', 'star')
QUICKSTART = CONFIGS / 'quickstart' / 'centermask-lite_v19-slim-dw_fpn_quickstart.py'


def write_checkpoint(path: Path, **meta) -> Path:
    """What mmengine writes after training, of a tiny model that finds things."""
    cfg = Config.fromfile(QUICKSTART)
    cfg.model = tiny_config(len(CLASSES))
    cfg.model.test_cfg.bbox.max_per_img = 12
    for name in ('val', 'test'):
        cfg[f'{name}_dataloader'].dataset.metainfo = dict(classes=CLASSES)
    model = talkative(tiny_model(len(CLASSES)))
    info = dict(cfg=cfg.pretty_text, dataset_meta=dict(classes=CLASSES)) | meta
    torch.save(dict(meta=info, state_dict=model.state_dict()), path)
    return path


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Coarse coloured noise ``(height, width, 3)``, which survives compression."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)


def write_video(path: Path, frames: list[np.ndarray], fps: float = 12.5) -> Path:
    height, width = frames[0].shape[:2]
    codec = 'MJPG' if path.suffix == '.avi' else 'mp4v'
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height)
    )
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def read_video(path: Path) -> tuple[list[np.ndarray], float]:
    """All frames, and the rate."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (answer := capture.read())[0]:
        frames.append(answer[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


def frame_of(name: str = 'a.jpg', height: int = 24, width: int = 32) -> Frame:
    return Frame(Source(name, name), np.full((height, width, 3), 90, np.uint8))


def instances_of(
    masks: np.ndarray, labels: list[int], scores: list[float], rle: bool = True
) -> InstanceData:
    """Instances with the boxes of their masks ``(n, H, W)``; box scores are 0.99."""
    from pycocotools import mask as coco_mask

    boxes = []
    for mask in masks:
        rows, columns = np.nonzero(mask)
        boxes.append(
            [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            if len(rows)
            else [0, 0, 0, 0]
        )
    encoded = [coco_mask.encode(np.asfortranarray(m.astype(np.uint8))) for m in masks]
    size = (masks.shape[1], masks.shape[2])
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
        scores=torch.full((len(labels),), 0.99),
        mask_scores=torch.tensor(scores, dtype=torch.float32),
        masks=RLEMasks(encoded, size) if rle else torch.from_numpy(masks).bool(),
    )
