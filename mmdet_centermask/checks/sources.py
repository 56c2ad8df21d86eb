"""Which annotation files a config reads, and what it does with each."""

from __future__ import annotations

import os.path as osp
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmdet.datasets import CocoDataset, CocoPanopticDataset
from mmdet.registry import DATASETS
from mmengine.config import Config

from ..experiment import is_remote, walk_datasets

SPLITS = ('train', 'val', 'test')


@dataclass
class Source:
    """An annotation file.

    Attributes:
        path: The file.
        fields: Where the config names it, such as `train_dataloader.dataset`.
        uses: Out of `masks`, `polygons`, `evaluation`, as in `rules.Use`.
        folder: What its `file_name`s are relative to; None where pictures are not
            read from this disk, or only an evaluator reads the file.
        metainfo: `classes` and, of panoptic data, `thing_classes` and
            `stuff_classes`; empty where they are not known.
        in_file_order: Labels are counted as `CocoDataset` does.
    """

    path: str
    fields: list[str]
    uses: set[str] = field(default_factory=set)
    folder: str | None = None
    metainfo: dict[str, Any] = field(default_factory=dict)
    in_file_order: bool = False


def find_sources(
    cfg: Config, splits: Sequence[str] = SPLITS
) -> tuple[list[Source], list[str]]:
    """The files that the splits of a config read, each once.

    Returns the sources, and a sentence on each dataset that is left out.
    """
    sources: dict[tuple[str, str | None], Source] = {}
    left_out = []
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        found = []
        if loader is not None:
            root = f'{split}_dataloader.dataset'
            for name, dataset in walk_datasets(loader.dataset, root):
                reason = why_left_out(dataset)
                if reason:
                    left_out.append(f'{name} is not checked: {reason}')
                else:
                    found.append(dataset_source(name, dataset))
        for name, metric in walk_evaluators(
            f'{split}_evaluator', cfg.get(f'{split}_evaluator')
        ):
            found.append(evaluator_source(name, metric, found))
        for source in found:
            known = sources.setdefault((source.path, source.folder), source)
            if known is not source:
                known.fields += [f for f in source.fields if f not in known.fields]
                known.uses |= source.uses
    return list(sources.values()), left_out


def coco_class(dataset: Mapping[str, Any]) -> type[CocoDataset] | None:
    """The class of a dataset; None where it is no kind of `CocoDataset`."""
    kind = dataset.get('type')
    found = kind if isinstance(kind, type) else DATASETS.get(str(kind))
    return found if found is not None and issubclass(found, CocoDataset) else None


def why_left_out(dataset: Mapping[str, Any]) -> str | None:
    """Why a dataset cannot be checked, or None."""
    if coco_class(dataset) is None:
        return f'{dataset.get("type")} is no CocoDataset'
    if not dataset.get('ann_file'):
        return 'it has no ann_file'
    if (dataset.get('backend_args') or {}).get('backend', 'local') != 'local':
        return 'its files are not on this disk'
    return (
        'its file is not on this disk' if is_remote(annotation_path(dataset)) else None
    )


def annotation_path(dataset: Mapping[str, Any]) -> str:
    return osp.join(dataset.get('data_root') or '', dataset['ann_file'])


def dataset_source(name: str, dataset: Mapping[str, Any]) -> Source:
    kind = coco_class(dataset)
    assert kind is not None
    masks = list(mask_loaders(dataset.get('pipeline')))
    uses = {'masks'} if masks else set()
    if any(not loader.get('poly2mask', True) for loader in masks):
        uses.add('polygons')
    prefix = (dataset.get('data_prefix') or {}).get('img') or ''
    return Source(
        annotation_path(dataset),
        [name],
        uses,
        osp.join(dataset.get('data_root') or '', prefix),
        class_names(kind, dataset.get('metainfo')),
        kind.load_data_list is CocoDataset.load_data_list,
    )


def class_names(kind: type[CocoDataset], metainfo: Any) -> dict[str, Any]:
    """`classes` and the like of a dataset, as mmengine puts them together."""
    loaded = kind._load_metainfo(metainfo)
    names = ['classes']
    if issubclass(kind, CocoPanopticDataset):
        names += ['thing_classes', 'stuff_classes']
    return {name: loaded[name] for name in names if loaded.get(name) is not None}


def mask_loaders(pipeline: Any) -> Iterator[Mapping[str, Any]]:
    """Transforms that read masks from the annotation file, however deep."""
    if isinstance(pipeline, Mapping):
        if pipeline.get('with_mask') and 'Panoptic' not in str(pipeline.get('type')):
            yield pipeline
        for value in pipeline.values():
            yield from mask_loaders(value)
    elif isinstance(pipeline, (list, tuple)):
        for part in pipeline:
            yield from mask_loaders(part)


def walk_evaluators(name: str, evaluators: Any) -> Iterator[tuple[str, Mapping]]:
    """Yield (field name, config) of every metric that reads an annotation file."""
    if isinstance(evaluators, (list, tuple)):
        for i, evaluator in enumerate(evaluators):
            yield from walk_evaluators(f'{name}.{i}', evaluator)
    elif evaluators is not None:
        path = evaluators.get('ann_file')
        if path and not is_remote(path):
            yield name, evaluators


def evaluator_source(
    name: str, metric: Mapping[str, Any], datasets: Sequence[Source]
) -> Source:
    """The file of a metric; classes and folder are those of the split's dataset."""
    path = metric['ann_file']
    metrics = metric.get('metric', 'bbox')
    uses = {'evaluation'}
    if 'segm' in ([metrics] if isinstance(metrics, str) else metrics):
        uses.add('masks')
    same = [s for s in datasets if osp.normpath(s.path) == osp.normpath(path)]
    if same:
        return Source(same[0].path, [name], uses, same[0].folder)
    if not datasets:
        return Source(path, [name], uses)
    first = datasets[0]
    return Source(path, [name], uses, None, first.metainfo, first.in_file_order)
