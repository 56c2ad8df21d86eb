# Half the channels of Lite again, for a handful of classes on a CPU.
_base_ = './centermask_lite_scratch.py'

model = dict(
    backbone=dict(arch='V-19-slim-dw'),
    neck=dict(out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(in_channels=64, conv_out_channels=64),
        mask_iou_head=dict(in_channels=64, conv_out_channels=64, fc_out_channels=256),
    ),
)
