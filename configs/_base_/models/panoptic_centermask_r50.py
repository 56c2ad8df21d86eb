# Panoptic-CenterMask R-50: the stock ResNet in Caffe's form, as the released model
# has it.
_base_ = './panoptic_centermask.py'

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
