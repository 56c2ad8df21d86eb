"""Spatial Attention-Guided Mask (SAG-Mask; CenterMask, section 3.2, figure 2)."""

from __future__ import annotations

import mmcv.cnn
import torch
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.registry import MODELS
from torch import Tensor, nn

from .mask_results import of_label


class SpatialAttention(nn.Module):
    """Weigh each position by what its channels hold (eq. 3 and 4).

    Average and maximum over the channels pass a 3x3 conv and a sigmoid; the
    result scales every channel at that position.

    Shape:
        ``(N, C, H, W)`` in and out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def attention_map(self, x: Tensor) -> Tensor:
        """The weights ``(N, 1, H, W)``, each within 0..1."""
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return self.conv(pooled).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention_map(x)


@MODELS.register_module()
class SAGMaskHead(FCNMaskHead):
    """Stock FCN mask head with spatial attention between convs and deconv.

    Takes the arguments of :class:`mmdet.models.FCNMaskHead`; the paper uses
    ``num_convs=4`` (Lite: 2). Losses, targets and pasting are inherited.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.spatial_attention = SpatialAttention()

    def init_weights(self) -> None:
        """Kaiming for every conv; stock covers all but the attention."""
        super().init_weights()
        nn.init.kaiming_normal_(
            self.spatial_attention.conv.weight, mode='fan_out', nonlinearity='relu'
        )

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Masks of each RoI.

        Args:
            x: RoI features ``(n, C, h, w)``.
            labels: ``(n,)``, where only the mask of this class is wanted.

        Returns:
            Logits ``(n, num_classes, 2 h, 2 w)``; with ``labels`` only those of each
            RoI's own class, ``(n, 1, 2 h, 2 w)``.
        """
        for conv in self.convs:
            x = conv(x)
        x = self.spatial_attention(x)
        if self.upsample is not None:
            x = self.upsample(x)
            if self.upsample_method == 'deconv':
                x = self.relu(x)
        if labels is None or self.class_agnostic:
            return self.conv_logits(x)
        if type(self.conv_logits) in (nn.Conv2d, mmcv.cnn.Conv2d):
            return conv_of_label(self.conv_logits, x, labels)
        # Such as mmdet's NormedConv2d, which does more than a matrix product.
        return of_label(self.conv_logits(x), labels)[:, None]


def conv_of_label(conv: nn.Conv2d, x: Tensor, labels: Tensor) -> Tensor:
    """A 1x1 conv of which each row gets the channel of its label alone.

    Args:
        conv: One output channel for each class.
        x: ``(n, C, h, w)``.
        labels: ``(n,)``.

    Returns:
        ``(n, 1, h, w)``.
    """
    weight = conv.weight[labels].flatten(1)[:, None]
    bias = conv.bias[labels].view(-1, 1, 1)  # type: ignore[index]
    return torch.baddbmm(bias, weight, x.flatten(2)).unflatten(2, x.shape[2:])
