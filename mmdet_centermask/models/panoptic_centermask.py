"""Panoptic-CenterMask: CenterMask and a semantic branch on one pyramid.

The semantic branch is that of Panoptic Feature Pyramid Networks
(https://arxiv.org/abs/1901.02446, section 3.1), the fusion of both answers that
of Panoptic Segmentation (https://arxiv.org/abs/1801.00868, section 6.1). The
pyramid starts at P2: the semantic branch reads P2 to P5, the boxes come from P3
to P7 and the masks from P3 to P5, as in CenterMask.
"""

from __future__ import annotations

from mmdet.registry import MODELS
from mmdet.structures import OptSampleList, SampleList
from mmdet.utils import ConfigType, InstanceList
from torch import Tensor

from .centermask import CenterMask, first_stride


@MODELS.register_module()
class PanopticCenterMask(CenterMask):
    """CenterMask that labels every pixel.

    Args:
        semantic_head: :class:`FullResolutionSemanticHead` in the released models.
        panoptic_fusion_head: Stock ``HeuristicFusionHead``.
        num_classes: Things of the data, handed to every head that does not
            state its own.
        num_stuff_classes: Stuff classes of the data, likewise. Labels count the
            things first, then the stuff; their sum is void.
        test_cfg: ``bbox``, ``rcnn`` and ``panoptic``: ``score_thr`` (an instance
            below it is no part of the fusion), ``mask_overlap`` and
            ``stuff_area_limit`` (pixels) of the stock fusion head.
        **kwargs: As in :class:`CenterMask`; the neck gives P2 to P7.

    Raises:
        ValueError: The parts do not fit, or masks are not bitmaps.
    """

    def __init__(
        self,
        *args,
        semantic_head: ConfigType,
        panoptic_fusion_head: ConfigType,
        num_classes: int | None = None,
        num_stuff_classes: int | None = None,
        test_cfg: ConfigType | None = None,
        **kwargs,
    ) -> None:
        kwargs.update(num_classes=num_classes, test_cfg=test_cfg)
        super().__init__(*args, **kwargs)
        counts = dict(
            num_things_classes=num_classes, num_stuff_classes=num_stuff_classes
        )
        counts = {name: count for name, count in counts.items() if count is not None}
        self.semantic_head = MODELS.build({**counts, **semantic_head})
        self.panoptic_fusion_head = MODELS.build(
            {
                **counts,
                **panoptic_fusion_head,
                'test_cfg': test_cfg and test_cfg['panoptic'],
            }
        )
        self._check_classes_fit()
        mask_format = (test_cfg or {}).get('rcnn', {}).get('mask_format', 'bitmap')
        if mask_format != 'bitmap':
            raise ValueError(
                f'PanopticCenterMask: test_cfg.rcnn.mask_format={mask_format!r}, but '
                "the fusion lays down bitmaps; leave it at 'bitmap'"
            )

    def _check_levels_fit(self) -> None:
        """The semantic head reads one level more than the boxes: P2, the first."""
        strides = list(self.bbox_head.strides)
        wanted = [strides[0] // 2, *strides]
        num_outs = getattr(self.neck, 'num_outs', len(wanted))
        first = first_stride(self.backbone, self.neck)
        if num_outs != len(wanted) or first not in (None, wanted[0]):
            given = f'neck.num_outs={num_outs}'
            if first is not None:
                given += f', the first of stride {first}'
            raise ValueError(
                f'PanopticCenterMask: {given}, but the neck has to give P2 for '
                f'semantic_head and then the levels of bbox_head: strides {wanted}; '
                'backbone.out_indices starts with 0'
            )
        super()._check_levels_fit()

    def loss(
        self, batch_inputs: Tensor, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Losses of all branches.

        Args:
            batch_inputs: ``(N, 3, H, W)``, normalised and padded.
            batch_data_samples: Ground truth: instances of the things, and
                ``gt_sem_seg`` ``(1, H, W)`` with the labels of things and stuff;
                255 is void.

        Returns:
            Those of :meth:`CenterMask.loss` and ``loss_seg``.
        """
        x = self.extract_feat(batch_inputs)
        losses = self.instance_losses(x[1:], batch_data_samples)
        losses.update(self.semantic_head.loss(x, batch_data_samples))
        return losses

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Instances and the panoptic map of each picture.

        Args:
            batch_inputs: ``(N, 3, H, W)``, normalised and padded.
            batch_data_samples: Meta of each picture.
            rescale: Give results in pixels of the original picture.

        Returns:
            The samples with ``pred_instances`` as from
            :meth:`CenterMask.predict`, and ``pred_panoptic_seg``: ``sem_seg``
            ``(1, H, W)``, each pixel ``label + 1000 * instance`` (instances
            count from 1, stuff and void have 0).
        """
        x = self.extract_feat(batch_inputs)
        results = self.predict_instances(x[1:], batch_data_samples, rescale)
        segments = self.fuse(
            results, self._semantic_logits(x, batch_data_samples, rescale)
        )
        for sample, segment in zip(batch_data_samples, segments, strict=True):
            sample.pred_panoptic_seg = segment
        return self.add_pred_to_datasample(batch_data_samples, results)

    def fuse(self, results_list: InstanceList, semantic_logits: list[Tensor]) -> list:
        """The panoptic map of each picture.

        Instances of at least ``score_thr`` are laid down by falling score, each
        on the pixels still free, unless more than ``mask_overlap`` of it is
        taken; stuff gets what is left, in areas of at least
        ``stuff_area_limit`` pixels.

        Args:
            results_list: ``scores``, ``labels``, ``masks`` ``(n, H, W)`` and
                ``bboxes`` of each picture. The box scores rank, not the mask
                scores.
            semantic_logits: ``(num_stuff_classes + 1, H, W)`` of each picture,
                the last class is any thing.
        """
        threshold = self.test_cfg.panoptic.score_thr
        confident = [result[result.scores >= threshold] for result in results_list]
        return self.panoptic_fusion_head.predict(confident, semantic_logits)

    def _semantic_logits(
        self, x: tuple[Tensor, ...], batch_data_samples: SampleList, rescale: bool
    ) -> list[Tensor]:
        img_metas = [sample.metainfo for sample in batch_data_samples]
        logits = self.semantic_head.predict(x, img_metas, rescale)
        if rescale:
            return logits
        # Not cropped by the stock head then, while masks never cover padding.
        shapes = [meta['img_shape'] for meta in img_metas]
        return [m[:, : s[0], : s[1]] for m, s in zip(logits, shapes, strict=True)]

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: OptSampleList = None
    ) -> tuple:
        """As in :class:`CenterMask`, and the semantic logits at stride 4."""
        x = self.extract_feat(batch_inputs)
        instances = self._forward_heads(x[1:], batch_inputs, batch_data_samples)
        return (*instances, self.semantic_head(x)['seg_preds'])

    def _check_classes_fit(self) -> None:
        things = self.bbox_head.num_classes
        heads = ('semantic_head', 'panoptic_fusion_head')
        for name in heads:
            count = getattr(self, name).num_things_classes
            if count != things:
                raise ValueError(
                    f'PanopticCenterMask: {name}.num_things_classes={count} but '
                    f'bbox_head.num_classes={things}; both count the things of the data'
                )
        semantic, fusion = (getattr(self, name).num_stuff_classes for name in heads)
        if semantic != fusion:
            raise ValueError(
                f'PanopticCenterMask: semantic_head.num_stuff_classes={semantic} but '
                f'panoptic_fusion_head.num_stuff_classes={fusion}'
            )
