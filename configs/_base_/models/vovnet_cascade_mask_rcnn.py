# Cascade R-CNN (arXiv 1712.00726, section 4): three stages with rising IoU thresholds
# and falling deviations, each with a mask head (arXiv 1906.09756, figure 7d).
_base_ = './vovnet_mask_rcnn.py'

model = dict(
    type='CascadeRCNN',
    roi_head=dict(
        type='CascadeRoIHead',
        num_stages=3,
        stage_loss_weights=[1, 0.5, 0.25],
        bbox_head=[
            dict(
                type='Shared2FCBBoxHead',
                in_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=80,
                bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=deviations),
                reg_class_agnostic=True,
                loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False),
                loss_bbox=dict(type='SmoothL1Loss', beta=1.0),
            )
            for deviations in (
                (0.1, 0.1, 0.2, 0.2),
                (0.05, 0.05, 0.1, 0.1),
                (0.033, 0.033, 0.067, 0.067),
            )
        ],
    ),
    train_cfg=dict(
        rcnn=[
            dict(
                assigner=dict(
                    type='MaxIoUAssigner',
                    pos_iou_thr=iou,
                    neg_iou_thr=iou,
                    min_pos_iou=iou,
                    match_low_quality=False,
                ),
                sampler=dict(
                    type='RandomSampler',
                    num=512,
                    pos_fraction=0.25,
                    add_gt_as_proposals=True,
                ),
                mask_size=28,
                pos_weight=-1,
            )
            for iou in (0.5, 0.6, 0.7)
        ]
    ),
)
