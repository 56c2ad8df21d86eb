"""How much memory a picture full of objects takes, in a process of its own.

    python tests/dense_memory.py configs/dense/centermask_v99_fpn_livecell.py

prints the peak in MB above the built model. The boxes are made up, everything else is
the model's own prediction: backbone, pyramid, box head, mask branch, pasting.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

import mmdet_centermask  # noqa: F401
from mmdet_centermask.benchmark.new_process import peak_resident_mb


def resident_mb() -> float:
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def many_boxes(number: int, side: int) -> InstanceData:
    """Cells of 15 to 60 pixels, all over the picture."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(number, 2, generator=generator) * (side - 60)
    size = torch.rand(number, 2, generator=generator) * 45 + 15
    return InstanceData(
        bboxes=torch.cat([corner, corner + size], 1),
        scores=torch.linspace(1, 0.1, number),
        labels=torch.zeros(number, dtype=torch.long),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('--number', type=int, default=2000)
    parser.add_argument('--side', type=int, default=1024)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args()
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict({'model.backbone.init_cfg': None, **args.cfg_options})
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model).eval()
    shape = (args.side, args.side)
    sample = DetDataSample(
        metainfo=dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))
    )
    found = model.predict_boxes

    def predict_boxes(x, samples):
        found(x, samples)
        return [many_boxes(args.number, args.side)]

    model.predict_boxes = predict_boxes
    before = resident_mb()
    with torch.no_grad():
        (sample,) = model.predict(torch.rand(1, 3, *shape), [sample])
    assert len(sample.pred_instances.masks) == args.number
    print(f'{peak_resident_mb() - before:.0f} MB above the model ({before:.0f} MB)')


if __name__ == '__main__':
    main()
