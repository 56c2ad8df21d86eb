"""Scale-adaptive RoI assignment (CenterMask, section 3.2, equation 2).

Feature Pyramid Networks choose the level of an RoI by its absolute size.
CenterMask chooses it by the share of the picture that the RoI covers, so that
a large object in a small picture still reads the coarsest level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor
from mmdet.registry import MODELS
from torch import Tensor, nn

from .cfg_fields import is_size

SHORT = (torch.float16, torch.bfloat16)


def adaptive_roi_levels(
    roi_areas: Tensor, image_areas: Tensor, min_level: int, max_level: int
) -> Tensor:
    """Pyramid level of each RoI: ``ceil(k_max - log2(A_image / A_roi))``, eq. 2.

    Args:
        roi_areas: ``(n,)`` areas in square pixels. The unclipped box counts; an
            RoI without area goes to the finest level.
        image_areas: ``(n,)`` area of each RoI's picture before padding, in the
            same pixels.
        min_level: Finest level, such as 3 for P3.
        max_level: Coarsest level (``k_max``), such as 5 for P5.

    Returns:
        ``(n,)`` int64 levels in ``min_level..max_level``.
    """
    ratio = roi_areas.clamp(min=0) / image_areas
    levels = torch.ceil(max_level + torch.log2(ratio))
    return levels.clamp(min_level, max_level).long()


def image_areas_of(batch_img_metas: Sequence[dict], like: Tensor) -> Tensor:
    """Areas ``(batch,)`` of the pictures before padding, in network-input pixels."""
    return like.new_tensor(
        [m['img_shape'][0] * m['img_shape'][1] for m in batch_img_metas]
    )


@MODELS.register_module()
class AdaptiveRoIExtractor(BaseRoIExtractor):
    """RoI features from the level that equation 2 assigns.

    Args:
        roi_layer: RoI operator of ``mmcv.ops``, such as
            ``dict(type='RoIAlign', output_size=14, sampling_ratio=0)``.
        out_channels: Channels of the pyramid.
        featmap_strides: Strides of the levels used, powers of two, finest
            first: ``[8, 16, 32]`` for P3 to P5.
        init_cfg: Initialisation.

    Raises:
        ValueError: The strides are not rising powers of two, or
            ``roi_layer.output_size`` is not one or two whole numbers.
    """

    def __init__(self, roi_layer, out_channels, featmap_strides, init_cfg=None) -> None:
        levels = [int(stride).bit_length() - 1 for stride in featmap_strides]
        rising = [2 ** (levels[0] + i) for i in range(len(levels))]
        if not levels or list(featmap_strides) != rising:
            raise ValueError(
                f'AdaptiveRoIExtractor: featmap_strides={featmap_strides} must be '
                'consecutive powers of two such as [8, 16, 32]'
            )
        output_size = roi_layer.get('output_size')
        if not is_size(output_size):
            raise ValueError(
                f'AdaptiveRoIExtractor: roi_layer.output_size={output_size!r} must be '
                'one or two whole numbers'
            )
        super().__init__(roi_layer, out_channels, featmap_strides, init_cfg)
        self.min_level, self.max_level = levels[0], levels[-1]

    def forward(
        self,
        feats: tuple[Tensor, ...],
        rois: Tensor,
        roi_scale_factor: float | None = None,
        image_areas: Tensor | None = None,
    ) -> Tensor:
        """Pool each RoI from its level.

        Args:
            feats: Maps ``(batch, out_channels, H_l, W_l)``, finest first.
            rois: ``(n, 5)``: index in the batch, x1, y1, x2, y2 in
                network-input pixels.
            roi_scale_factor: Grow the RoIs about their centres before pooling.
            image_areas: ``(batch,)`` areas before padding. Without them (stock
                RoI heads do not hand them over) the padded area stands in.

        Returns:
            ``(n, out_channels, *output_size)``, in channels_last order where the maps
            are.
        """
        levels = self.roi_levels(feats, rois, image_areas)
        if roi_scale_factor is not None:
            rois = self.roi_rescale(rois, roi_scale_factor)
        pooled = torch.empty(
            (len(rois), self.out_channels, *self.roi_layers[0].output_size),
            dtype=feats[0].dtype,
            device=feats[0].device,
            memory_format=layout_of(feats[0]),
        ).zero_()
        for level, (feat, roi_layer) in enumerate(
            zip(feats, self.roi_layers, strict=True), self.min_level
        ):
            chosen = (levels == level).nonzero().squeeze(1)
            if len(chosen):
                pooled[chosen] = self.pool(roi_layer, feat, rois[chosen])
            elif self.training:
                # A level without RoIs still takes part in the graph, with zero
                # gradient: the processes of a distributed run must agree on
                # which parameters have one.
                pooled = pooled + feat.sum() * 0
        return pooled

    def pool(self, roi_layer: nn.Module, feat: Tensor, rois: Tensor) -> Tensor:
        """RoIs of one level, ``(n, out_channels, *output_size)`` like ``feat``."""
        # mmcv's operator on a CPU reads a channels_last map as if it were not, and
        # none of its operators knows bfloat16, whose steps are four pixels from 512
        # on: too coarse for the corners of a box.
        exact = feat.float() if feat.dtype in SHORT else feat
        return roi_layer(exact.contiguous(), rois.type_as(exact)).type_as(feat)

    def roi_levels(
        self, feats: tuple[Tensor, ...], rois: Tensor, image_areas: Tensor | None
    ) -> Tensor:
        """Level numbers ``(n,)`` of ``rois``, between P-min and P-max."""
        if image_areas is None:
            height, width = feats[0].shape[-2:]
            padded = height * width * self.featmap_strides[0] ** 2
            image_areas = rois.new_full((feats[0].shape[0],), padded)
        roi_areas = (rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])
        return adaptive_roi_levels(
            roi_areas, image_areas[rois[:, 0].long()], self.min_level, self.max_level
        )


def layout_of(feat: Tensor) -> torch.memory_format:
    """The order that ``feat`` lies in."""
    last = feat.is_contiguous(memory_format=torch.channels_last)
    first = feat.is_contiguous()  # both, where there is one channel or one pixel
    return torch.channels_last if last and not first else torch.contiguous_format
