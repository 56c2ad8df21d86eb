"""The ONNX file: exported by `torch.onnx`, of ONNX's own operators alone."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto
from onnxscript import opset18

from .exportable_centermask import Detections, ExportableCenterMask
from .torch_program import exported_program

OPSET = 18
INPUTS = ('images', 'sizes')

# Its operators take what a graph under construction holds, whatever their hints say.
op: Any = opset18


def write_onnx(net: ExportableCenterMask, path: str | Path) -> None:
    """Write `net` as one file; see :class:`ExportableCenterMask` for what it takes.

    The number of pictures, height and width are free.
    """
    # torch.onnx says on every call that torchvision is missing.
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # torch's own deprecations.
        warnings.simplefilter('ignore')
        program = torch.onnx.export(
            exported_program(net),
            input_names=INPUTS,
            output_names=Detections._fields,
            opset_version=OPSET,
            custom_translation_table={
                torch.ops.mmdet_centermask.roi_align.default: onnx_roi_align,
                torch.ops.mmdet_centermask.nms.default: onnx_nms,
            },
            verbose=False,
        )
    model = program.model_proto  # type: ignore[union-attr]
    pad_ceil_mode_pools(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def onnx_roi_align(
    features, rois, size: int, spatial_scale: float, sampling_ratio: int
):
    """ONNX's RoiAlign for :func:`~.operators.roi_align`."""
    pictures = op.Cast(op.Squeeze(op.Slice(rois, [0], [1], [1]), [1]), to=7)  # int64
    return op.RoiAlign(
        features,
        op.Slice(rois, [1], [5], [1]),
        pictures,
        mode='avg',
        coordinate_transformation_mode='half_pixel',  # mmcv calls it aligned
        output_height=size,
        output_width=size,
        spatial_scale=spatial_scale,
        sampling_ratio=sampling_ratio,
    )


def onnx_nms(boxes, scores, iou_threshold: float, limit: int):
    """ONNX's NonMaxSuppression for :func:`~.operators.nms`, with one class.

    ONNX names the corners y first; an overlap is the same with both axes swapped.
    """
    chosen = op.NonMaxSuppression(
        boxes,
        op.Unsqueeze(scores, [1]),
        op.Constant(value_ints=[limit]),
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[0.0]),  # a score has to be above
    )
    return op.Gather(chosen, op.Constant(value_ints=[0, 2]), axis=1)


def pad_ceil_mode_pools(model: ModelProto) -> None:
    """Write `ceil_mode` of VoVNet's poolings as padding, in place.

    The same maximum, since the maps that reach them have even sides. With `ceil_mode`
    OpenVINO fails on a map smaller than the window.
    """
    for node in model.graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == 'MaxPool' and attributes['ceil_mode'].i:
            attributes['ceil_mode'].i = 0
            attributes['pads'].ints[:] = [0, 0, 1, 1]
