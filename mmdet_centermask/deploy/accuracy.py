"""Average precision of a network in any runtime, by the config's own metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

from ..experiment import check_data_files, walk_datasets
from .predict import load_picture

Found = Mapping[str, np.ndarray]


def read_dataset(cfg: Config, split: str) -> BaseDataset:
    """The first dataset of `split`, 'train' or 'test'; its files have to be there."""
    check_data_files(cfg, (split,))
    _, dataset = next(walk_datasets(cfg[f'{split}_dataloader'].dataset, ''))
    return DATASETS.build(dataset)


def average_precisions(
    find: Callable[[np.ndarray], Found], cfg: Config, limit: int | None = None
) -> dict[str, float]:
    """Let `test_evaluator` judge what is found in the test pictures.

    Args:
        find: From an RGB picture to the fields that `predict.Predictor` returns.
        cfg: Its `test_dataloader.dataset` and `test_evaluator` are used.
        limit: Count the first so many pictures only.

    Returns:
        The metric's numbers by their names, such as `coco/segm_mAP`, within 0..1.
    """
    dataset = read_dataset(cfg, 'test')
    infos = [dataset.get_data_info(i) for i in range(len(dataset))][:limit]
    evaluator = Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = dataset.metainfo
    for metric in evaluator.metrics:
        metric.img_ids = [info['img_id'] for info in infos]
    for info in infos:
        picture = load_picture(info['img_path'])
        sample = DetDataSample(
            metainfo=dict(img_id=info['img_id'], ori_shape=picture.shape[:2])
        )
        sample.pred_instances = as_instances(find(picture))
        evaluator.process(data_samples=[sample])
    return evaluator.evaluate(len(infos))


def as_instances(found: Found) -> InstanceData:
    """The fields as mmdet names them."""
    fields = {name: torch.from_numpy(np.asarray(found[name])) for name in found}
    return InstanceData(bboxes=fields.pop('boxes'), **fields)
