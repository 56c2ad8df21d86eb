_base_ = './panoptic-centermask_v39_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=50,
        frozen_stages=1,  # the stem and the first residual stage
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='caffe',  # the stride is in the 1x1 conv
        init_cfg=dict(
            type='Pretrained', checkpoint='open-mmlab://detectron2/resnet50_caffe'
        ),
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
