# ResNeXt-101 32x8d; the only backbone trained on pixels divided by their std.
_base_ = './panoptic-centermask_r101_fpn_ms-3x_coco.py'

model = dict(
    data_preprocessor=dict(std=[57.375, 57.12, 58.395]),  # BGR
    backbone=dict(
        type='ResNeXt',
        groups=32,
        base_width=8,
        style='pytorch',
        init_cfg=dict(checkpoint='open-mmlab://detectron2/resnext101_32x8d'),
    ),
)
