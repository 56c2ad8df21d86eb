"""From pictures, videos and cameras to masks, overlays and files."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from os import PathLike
from typing import Any

import numpy as np
import torch
from mmdet.apis import DetInferencer
from mmdet.datasets.transforms import InferencerLoader
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.structures import InstanceData
from torch import nn

from ..models.centermask_roi_head import CenterMaskRoIHead
from ..speed import optimize
from .attention_probe import AttentionProbe
from .background import in_background
from .frames import Frame, decode_with, read_frames
from .instances import best_first, rles_of, scores_of
from .model_source import check_weights, classes_of, read_model
from .outputs import Outputs
from .overlay_visualizer import OverlayVisualizer
from .prediction import Prediction
from .progress import with_progress
from .sources import Input, Skipped, Source, find_sources

# Batches that wait between decoding, network and drawing.
DEPTH = 2
# More than a trained mask-IoU head, which is not clamped, ever predicts.
HIGHEST_IOU = 1.25
# A window needs a moment to paint itself; 0 would wait for a key.
SHOW_SECONDS = 0.001

Inputs = Input | Sequence[Input]
Results = Generator[Prediction | Skipped, None, None]


class CenterMaskInferencer(DetInferencer):
    """MMDetection's inferencer, for videos too, and with masks in mind.

    Scores are mask scores throughout. What cannot be read is reported among the
    results and stops nothing. Inputs are those of :func:`find_sources`.

    Args:
        model: Name or path of a config, or a checkpoint alone, which carries its
            config.
        weights: Checkpoint, file or URL, for a config.
        device: Such as ``'cpu'`` or ``'cuda:0'``; a GPU where there is one.
        fast: Pass the model through :func:`mmdet_centermask.optimize`.
        color_by: Overlays by ``'object'`` or by ``'class'``.
        palette: Of the classes, as in ``DetInferencer``.
        show_progress: Show a progress bar.
        cfg_options: Fields of the config to override, ``{'a.b': 1}``.

    Raises:
        ExperimentError: No such config or checkpoint, or they do not fit together.
    """

    def __init__(
        self,
        model: str | PathLike | Config | None = None,
        weights: str | PathLike | None = None,
        device: str | None = None,
        fast: bool = True,
        color_by: str = 'object',
        palette: str = 'none',
        show_progress: bool = True,
        cfg_options: dict[str, Any] | None = None,
    ) -> None:
        cfg, self._checkpoint = read_model(model, weights, cfg_options or {})
        self.color_by = color_by
        # The checkpoint is read already, and need not be once more.
        super().__init__(
            cfg, None, device, palette=palette, show_progress=show_progress
        )
        if fast:
            self.model: nn.Module = optimize(self.model)

    def _load_weights_to_model(
        self, model: Any, checkpoint: dict | None, cfg: Config
    ) -> None:
        """As stock, but all of the model or nothing, and with the data's classes."""
        checkpoint, self._checkpoint = self._checkpoint, None
        classes = classes_of(model, cfg)
        if checkpoint is not None:
            check_weights(model, checkpoint)
            meta = checkpoint.setdefault('meta', {})
            if 'CLASSES' not in meta:
                meta.setdefault('dataset_meta', dict(classes=classes))
        super()._load_weights_to_model(model, checkpoint, cfg)
        if checkpoint is None:
            model.dataset_meta['classes'] = classes

    def _init_pipeline(self, cfg: Config) -> Compose:
        """As stock; pictures are decoded as its loader would, but before it."""
        pipeline = super()._init_pipeline(cfg)
        loader = next(t for t in pipeline.transforms if isinstance(t, InferencerLoader))
        self.decode = decode_with(
            loader.from_file.color_type, loader.from_file.imdecode_backend
        )
        return pipeline

    def _init_collate(self, cfg: Config) -> Callable:
        """As stock, which warns where there is nothing to look up."""
        if 'collate_fn' in cfg.test_dataloader:
            return super()._init_collate(cfg)
        return pseudo_collate

    def _init_visualizer(self, cfg: Config) -> OverlayVisualizer:
        visualizer = OverlayVisualizer(color_by=self.color_by)
        visualizer.dataset_meta = self.model.dataset_meta
        return visualizer

    def _inputs_to_list(self, inputs: Inputs) -> list[Source | Skipped]:
        return find_sources(inputs)

    def preprocess(
        self, inputs: Iterable[Source | Skipped], batch_size: int = 1, **kwargs: Any
    ) -> Iterator[tuple[list[Frame | Skipped], dict | None]]:
        """Read and prepare batches.

        Padding would show in a network's answer, if slightly. So frames share a batch
        only if they have one size, and batches change nothing.

        Yields:
            At most `batch_size` frames, what was skipped between them, and what the
            model takes for the frames; None where there is none.
        """
        items: list[Frame | Skipped] = []
        ready: list[dict] = []
        for item in read_frames(inputs, self.decode):
            packed = self.pipeline(item.pixels) if isinstance(item, Frame) else None
            if packed and ready and packed['inputs'].shape != ready[0]['inputs'].shape:
                yield items, self.collate_fn(ready)
                items, ready = [], []
            items.append(item)
            if packed:
                ready.append(packed)
            if len(ready) == batch_size:
                yield items, self.collate_fn(ready)
                items, ready = [], []
        if items:
            yield items, self.collate_fn(ready) if ready else None

    @torch.no_grad()
    def forward(
        self,
        inputs: dict,
        score_thr: float = 0.0,
        probe: AttentionProbe | None = None,
        **kwargs: Any,
    ) -> list[DetDataSample]:
        """Predict a batch.

        Args:
            inputs: What :meth:`preprocess` collated.
            score_thr: Least mask score (score, where there is no mask score).
            probe: Adds what it sees to the instances.

        Returns:
            On the CPU, instances best first.
        """
        roi_head = getattr(self.model, 'roi_head', None)
        if isinstance(roi_head, CenterMaskRoIHead):
            # What cannot come to that mask score need not have a mask.
            roi_head.test_cfg.score_thr = score_thr / HIGHEST_IOU
        with probe.watching() if probe else nullcontext():
            samples = super().forward(inputs)
        for sample in samples:
            instances = sample.pred_instances
            passed = instances[scores_of(instances) >= score_thr]
            sample.pred_instances = best_first(passed)
        if probe:
            probe.annotate(samples)
        return [sample.cpu() for sample in samples]

    def stream(
        self,
        inputs: Inputs,
        batch_size: int = 1,
        score_thr: float = 0.3,
        attention: bool = False,
    ) -> Results:
        """Predict frame after frame, in order, without end for a camera.

        Decoding, the network and the caller's work on what is yielded run side by
        side, a few batches apart.

        Args:
            batch_size: Frames that pass the network together.
            score_thr: Least mask score.
            attention: Add what :class:`AttentionProbe` sees.
        """
        probe = AttentionProbe(self.model) if attention else None
        batches = in_background(
            self.preprocess(self._inputs_to_list(inputs), batch_size), DEPTH
        )
        return in_background(
            self._predictions(batches, score_thr, probe), DEPTH * batch_size
        )

    def _predictions(
        self,
        batches: Iterator[tuple[list[Frame | Skipped], dict | None]],
        score_thr: float,
        probe: AttentionProbe | None,
    ) -> Iterator[Prediction | Skipped]:
        """The network's part of :meth:`stream`."""
        for items, data in batches:
            samples = iter(() if data is None else self.forward(data, score_thr, probe))
            for item in items:
                if isinstance(item, Frame):
                    yield Prediction(item, next(samples))
                else:
                    yield item

    def run(
        self,
        inputs: Inputs,
        out_dir: str | PathLike = '',
        save: Sequence[str] = ('overlay', 'coco'),
        attention: bool = False,
        ann_file: str | None = None,
        show: bool = False,
        draw: bool = False,
        **options: Any,
    ) -> Results:
        """Predict, draw and write, frame after frame.

        Args:
            out_dir: Folder of the files; none are written without.
            save: Which, of :data:`~.outputs.FORMATS`.
            attention: Draw attention maps and levels too, into the folder `attention`.
            ann_file: COCO file whose ids of pictures and classes the COCO files get.
            show: Show overlays in a window.
            draw: Give overlays, even if nobody saves or shows them.
            options: `batch_size` and `score_thr` of :meth:`stream`.
        """
        sources = self._inputs_to_list(inputs)
        classes = self.visualizer.dataset_meta['classes']
        outputs = Outputs(out_dir, save, classes, ann_file)
        stream = self.stream(sources, attention=attention, **options)
        with closing(outputs), closing(stream):
            for item in (
                with_progress(stream, sources) if self.show_progress else stream
            ):
                if isinstance(item, Prediction):
                    frame, sample = item.frame, item.sample
                    if draw or show or 'overlay' in outputs.formats:
                        (item.overlay,) = self.visualize([frame], [sample], show=show)
                    if attention:
                        (item.attention,) = self.visualize([frame], [sample], True)
                    yield from outputs.add(item)
                yield item

    def visualize(
        self,
        inputs: Sequence[Frame],
        preds: Sequence[DetDataSample],
        attention: bool = False,
        show: bool = False,
        **kwargs: Any,
    ) -> list[np.ndarray]:
        """Draw predictions of :meth:`forward`.

        Args:
            inputs: The frames, those of a video in order.
            preds: Their predictions.
            attention: Draw attention and levels, not the masks.
            show: Show each in a window.

        Returns:
            ``(H, W, 3)`` uint8 RGB of each frame.
        """
        drawn = []
        for frame, sample in zip(inputs, preds, strict=True):
            image = np.ascontiguousarray(frame.pixels[..., ::-1])
            if attention:
                view = self.visualizer.draw_attention(image, sample.pred_instances)
            else:
                if frame.index == 0:
                    self.visualizer.forget_colours()
                view = self.visualizer.draw(image, sample)
            if show:
                bgr = np.ascontiguousarray(view[..., ::-1])
                self.visualizer.show(bgr, frame.name, SHOW_SECONDS, backend='cv2')
            drawn.append(view)
        return drawn

    def __call__(
        self,
        inputs: Inputs,
        batch_size: int = 1,
        return_vis: bool = False,
        return_datasamples: bool = False,
        **options: Any,
    ) -> dict[str, list]:
        """Predict all inputs and give everything at once.

        Args:
            inputs: No camera, which never ends: for that there are :meth:`run` and
                :meth:`stream`.
            batch_size: Frames that pass the network together.
            return_vis: Give the overlays, too.
            return_datasamples: Give ``DetDataSample`` instead of dicts.
            options: Of :meth:`run` and :meth:`stream`: `out_dir`, `save`, `score_thr`,
                `attention`, `ann_file`, `show`.

        Returns:
            `predictions`: for each frame `labels`, `scores`, `bboxes`, `masks` (COCO's
            RLE) and `mask_scores`, best mask score first, or a sample;
            `visualization`: ``(H, W, 3)`` uint8 RGB; `skipped`: names with reasons.
        """
        results: dict[str, list] = dict(predictions=[], visualization=[], skipped=[])
        for item in self.run(inputs, batch_size=batch_size, draw=return_vis, **options):
            if isinstance(item, Skipped):
                results['skipped'].append(item)
                continue
            done = self.postprocess([item.sample], None, return_datasamples)
            results['predictions'] += done['predictions']
            if return_vis:
                results['visualization'].append(item.overlay)
        return results

    def pred2dict(self, data_sample: DetDataSample, pred_out_dir: str = '') -> dict:
        """As stock, with `mask_scores`; the panoptic map as it is, ``(H, W)``."""
        instances = data_sample.pred_instances
        numbers = ('labels', 'scores', 'bboxes', 'mask_scores')
        plain = InstanceData(**{k: instances[k] for k in numbers if k in instances})
        result = super().pred2dict(DetDataSample(pred_instances=plain), pred_out_dir)
        if 'masks' in instances:
            result['masks'] = rles_of(instances)
        if 'mask_scores' in instances:
            result['mask_scores'] = instances.mask_scores.tolist()
        if 'pred_panoptic_seg' in data_sample:
            result['panoptic_seg'] = data_sample.pred_panoptic_seg.sem_seg[0].numpy()
        return result
