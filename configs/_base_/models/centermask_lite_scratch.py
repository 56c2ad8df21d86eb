# CenterMask-Lite without pretrained weights: norm layers learn, nothing is loaded.
_base_ = ['./centermask_lite.py', '../fcos_scratch.py']

model = dict(
    backbone=dict(
        arch='V-19-slim',
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(in_channels=[256, 384, 512]),
    bbox_head=dict(init_cfg={{_base_.fcos_scratch}}),
    train_cfg=dict(rcnn=dict(sampler=dict(num=64))),
)
