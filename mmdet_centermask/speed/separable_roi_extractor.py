"""CenterMask's RoI extractor with the pooling that suits a CPU."""

from __future__ import annotations

from mmcv.ops import RoIAlign
from torch import Tensor, nn

from ..models.roi_extractor import AdaptiveRoIExtractor
from .separable_roi_align import separable_roi_align


class SeparableRoIExtractor(AdaptiveRoIExtractor):
    """:class:`AdaptiveRoIExtractor` in any dtype and layout."""

    def pool(self, roi_layer: RoIAlign, feat: Tensor, rois: Tensor) -> Tensor:
        return separable_roi_align(
            feat,
            rois,
            roi_layer.output_size,
            roi_layer.spatial_scale,
            roi_layer.sampling_ratio,
        )


def use_separable_pooling(detector: nn.Module) -> int:
    """Swap every extractor that can be swapped, in place; return how many."""
    swapped = 0
    for parent in list(detector.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is AdaptiveRoIExtractor and _is_plain(child):
                setattr(parent, name, _separable(child))
                swapped += 1
    return swapped


def _is_plain(extractor: AdaptiveRoIExtractor) -> bool:
    return all(
        isinstance(layer, RoIAlign) and layer.aligned and layer.pool_mode == 'avg'
        for layer in extractor.roi_layers
    )


def _separable(extractor: AdaptiveRoIExtractor) -> SeparableRoIExtractor:
    layer = extractor.roi_layers[0]
    cfg = dict(
        type='RoIAlign',
        output_size=layer.output_size,
        sampling_ratio=layer.sampling_ratio,
    )
    return SeparableRoIExtractor(
        cfg, extractor.out_channels, extractor.featmap_strides
    ).train(extractor.training)
