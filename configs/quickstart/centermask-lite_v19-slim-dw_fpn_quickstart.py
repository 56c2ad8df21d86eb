# A few minutes on two CPU cores, from scratch: `make demo`.
_base_ = [
    '../_base_/models/centermask_lite.py',
    '../_base_/datasets/quickstart_instance.py',
    '../_base_/schedules/adamw_short.py',
    '../_base_/default_runtime.py',
]

# Half the channels of Lite again: five classes do not need more.
model = dict(
    num_classes=5,
    backbone=dict(
        arch='V-19-slim-dw',
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(in_channels=[256, 384, 512], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(in_channels=64, conv_out_channels=64),
        mask_iou_head=dict(in_channels=64, conv_out_channels=64, fc_out_channels=256),
    ),
    train_cfg=dict(rcnn=dict(sampler=dict(num=64))),
)

default_hooks = dict(visualization=dict(score_thr=0.5))
