"""Which networks can be exported; the others are refused in one line each."""

from __future__ import annotations

from mmcv.ops import RoIAlign

from ..experiment import ExperimentError
from ..models import AdaptiveRoIExtractor, CenterMask

STRIDE = 32  # of the deepest map that is resized and added


def check_exportable(model: CenterMask) -> None:
    """Refuse what the exported graph would compute otherwise.

    Raises:
        ExperimentError: Names the field of the config, its value and what is possible.
    """
    kind = type(model)
    if not isinstance(model, CenterMask) or kind.predict is not CenterMask.predict:
        raise ExperimentError(
            f'model.type={kind.__name__!r} cannot be exported, only CenterMask can'
        )
    _check_boxes(model)
    _check_extractor(model)
    divisor = model.data_preprocessor.pad_size_divisor
    if divisor % STRIDE:
        raise ExperimentError(
            f'model.data_preprocessor.pad_size_divisor={divisor} has to be a multiple '
            f'of {STRIDE}: the exported graph takes no other heights and widths'
        )


def _check_boxes(model: CenterMask) -> None:
    cfg = model.test_cfg.bbox
    known = {'type', 'iou_threshold', 'class_agnostic'}
    if cfg.nms.get('type', 'nms') != 'nms' or not set(cfg.nms) <= known:
        raise ExperimentError(
            f'model.test_cfg.bbox.nms={dict(cfg.nms)} cannot be exported, only '
            "dict(type='nms', iou_threshold=...) can"
        )
    if cfg.get('min_bbox_size', -1) >= 0:
        raise ExperimentError(
            f'model.test_cfg.bbox.min_bbox_size={cfg.min_bbox_size} cannot be '
            'exported; leave it out'
        )
    if getattr(model.bbox_head.bbox_coder, 'clip_border', False):
        raise ExperimentError(
            'model.bbox_head.bbox_coder.clip_border=True cannot be exported; set it '
            'to False, CenterMask clips at the end'
        )


def _check_extractor(model: CenterMask) -> None:
    extractor = model.roi_head.mask_roi_extractor
    if type(extractor) is not AdaptiveRoIExtractor:
        raise ExperimentError(
            f'model.roi_head.mask_roi_extractor.type={type(extractor).__name__!r} '
            'cannot be exported, only AdaptiveRoIExtractor can'
        )
    layer = extractor.roi_layers[0]
    if (
        not isinstance(layer, RoIAlign)
        or (layer.pool_mode, layer.aligned) != ('avg', True)
        or len(set(layer.output_size)) != 1
    ):
        raise ExperimentError(
            f'model.roi_head.mask_roi_extractor.roi_layer={layer} cannot be exported, '
            'only an averaging, aligned, square RoIAlign can'
        )
