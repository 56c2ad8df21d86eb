# A quarter of the channels, and norm layers that learn, for a handful of classes on a
# CPU.
_base_ = ['./panoptic_centermask.py', '../fcos_scratch.py']

model = dict(
    backbone=dict(
        arch='V-19-slim-dw',
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(in_channels=[112, 256, 384, 512], out_channels=64),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        init_cfg={{_base_.fcos_scratch}},
    ),
    roi_head=dict(
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64),
        mask_iou_head=dict(
            num_convs=2, in_channels=64, conv_out_channels=64, fc_out_channels=256
        ),
    ),
    semantic_head=dict(in_channels=64, inner_channels=64),
    train_cfg=dict(rcnn=dict(sampler=dict(num=64))),
)
