# A few minutes on two CPU cores, from scratch, on make_quickstart_data.py --panoptic.
_base_ = [
    '../_base_/models/panoptic_centermask.py',
    '../_base_/datasets/quickstart_panoptic.py',
    '../_base_/schedules/adamw_short.py',
    '../_base_/default_runtime.py',
]

# A quarter of the channels: seven classes do not need more.
model = dict(
    num_classes=5,
    num_stuff_classes=2,
    backbone=dict(
        arch='V-19-slim-dw',
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(in_channels=[112, 256, 384, 512], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64, stacked_convs=2),
    roi_head=dict(
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64),
        mask_iou_head=dict(
            num_convs=2, in_channels=64, conv_out_channels=64, fc_out_channels=256
        ),
    ),
    semantic_head=dict(in_channels=64, inner_channels=64),
    train_cfg=dict(rcnn=dict(sampler=dict(num=64))),
    # Pictures of 160 x 160 have a thirtieth of COCO's area.
    test_cfg=dict(panoptic=dict(stuff_area_limit=128)),
)
