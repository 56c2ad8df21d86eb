"""Run a network on the parity picture and name its answers as the goldens do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..convert import convert_checkpoint
from ..models.box_candidates import predict_boxes
from ..models.mask_results import of_label
from .panoptic import panoptic_answers
from .stand_in import stand_in_state

Answers = dict[str, np.ndarray]

CHANNEL_STEP = 16  # of backbone and pyramid maps, every 16th channel is in a golden
CLASS_STEPS = {4: 8}  # of the class logits of P4 every 8th class, of the others all
SHOWN = 5  # of the names that do not fit


def stand_in_network(
    config: str | Path, manifest: Mapping[str, Sequence[int]]
) -> BaseDetector:
    """The model of `config`, filled through the converter.

    Raises:
        ValueError: The names and shapes of `manifest` do not fit it one to one.
    """
    with TemporaryDirectory() as folder:
        official, ours = Path(folder, 'official.pth'), Path(folder, 'ours.pth')
        torch.save({'model': stand_in_state(manifest)}, official)
        report = convert_checkpoint(official, ours, config=config)
        if not report.fits:
            problems = report.problems()
            shown = '\n  '.join(problems[:SHOWN])
            raise ValueError(
                f'{config}: the manifest is of another network ({report.headline}; '
                f'{len(problems)} do not fit), first\n  {shown}'
            )
        state = torch.load(ours, weights_only=True)['state_dict']
    init_default_scope('mmdet')
    model = MODELS.build(Config.fromfile(config).model)
    model.load_state_dict(state)
    return model


class Call(NamedTuple):
    """One call of a module."""

    inputs: tuple
    output: Any


@contextmanager
def recorded(**modules: nn.Module) -> Iterator[dict[str, list[Call]]]:
    """The calls of the given modules while the block runs."""
    calls: dict[str, list[Call]] = {name: [] for name in modules}

    def keep(name: str):
        return lambda module, inputs, output: calls[name].append(Call(inputs, output))

    hooks = [m.register_forward_hook(keep(name)) for name, m in modules.items()]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def predict_answers(model: BaseDetector, picture: np.ndarray, case: str) -> Answers:
    """All that a golden holds of one cut of the picture (`case`), and more.

    The maps are recorded while `model.predict` runs, so that what is compared is
    what a user gets.
    """
    model.eval()
    data = batch_of(model, picture, InstanceData(), training=False)
    parts = dict(
        backbone=model.backbone,
        neck=model.neck,
        heads=model.bbox_head,
        logits=model.roi_head.mask_head,
        ious=model.roi_head.mask_iou_head,
    )
    with recorded(**parts) as calls:
        (result,) = model.predict(data['inputs'], data['data_samples'])
    out = {name: [call.output for call in part] for name, part in calls.items()}
    (backbone,), (neck,), (heads,) = out['backbone'], out['neck'], out['heads']
    answers: dict[str, Any] = _maps(
        backbone, neck, heads, data['inputs'], model.bbox_head.strides
    )
    metas = [data['data_samples'][0].metainfo]
    (boxes,) = predict_boxes(model.bbox_head, heads, metas, model.test_cfg.bbox)
    ious, logits = (
        of_label(torch.cat(out[name]), boxes.labels) for name in ('ious', 'logits')
    )
    final = result.pred_instances
    answers |= {
        'boxes': boxes.bboxes,
        'scores': boxes.scores,
        'labels': boxes.labels,
        'mask_scores': boxes.scores * ious,
        'mask_probs': logits.sigmoid(),
        'final_boxes': final.bboxes,
        'final_scores': final.scores,
        'final_mask_scores': final.mask_scores,
        'final_labels': final.labels,
        'final_masks_packed': final.masks,
    }
    if hasattr(model, 'semantic_head'):
        answers |= panoptic_answers(model, neck, result)
    return {f'{case}/{name}': np.asarray(value) for name, value in answers.items()}


def _maps(backbone, neck, heads, inputs: Tensor, strides) -> dict[str, Tensor]:
    """Maps by their level, which is the logarithm of their stride.

    The pyramid ends in maps that are rounded up, so that only its first level is
    told by its width; the levels of the heads, by the strides they were built with.
    """
    width = inputs.shape[-1]

    def level(feature: Tensor) -> int:
        return round(np.log2(width / feature.shape[-1]))

    answers = {f'backbone/stage{level(x)}': x[0, ::CHANNEL_STEP] for x in backbone}
    for k, x in enumerate(neck, level(neck[0])):
        answers[f'fpn/p{k}'] = x[0, ::CHANNEL_STEP]
    for stride, scores, distances, centerness in zip(strides, *heads, strict=True):
        k = round(np.log2(stride))
        answers[f'cls/p{k}'] = scores[0, :: CLASS_STEPS.get(k, 1)]
        # The stock head has left the stride in, as it does outside of training.
        answers[f'reg/p{k}'] = distances[0] / stride
        answers[f'ctr/p{k}'] = centerness[0]
    return answers


def batch_of(
    model: BaseDetector, picture: np.ndarray, truth: InstanceData, training: bool
) -> dict:
    """The batch of one picture, unscaled, as the model's preprocessor makes it."""
    sample = DetDataSample(
        metainfo=dict(
            img_shape=picture.shape[:2],
            ori_shape=picture.shape[:2],
            scale_factor=(1.0, 1.0),
        )
    )
    sample.gt_instances = truth
    sample.ignored_instances = truth[:0]
    pixels = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    batch = dict(inputs=[pixels], data_samples=[sample])
    return model.data_preprocessor(batch, training)
