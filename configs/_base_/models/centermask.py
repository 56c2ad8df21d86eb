# CenterMask V-39 as released: CVPR 2020 (arXiv 1911.06667), section 4.1, with
# the official recipe where the paper is silent.
custom_imports = dict(imports=['mmdet_centermask'], allow_failed_imports=False)

boxes = dict(
    score_thr=0.05,
    nms_pre=1000,
    nms=dict(type='nms', iou_threshold=0.6),
    max_per_img=50,  # the paper's 50, where MMDetection keeps 100
)

model = dict(
    type='CenterMask',
    num_classes=80,  # the one place that counts classes; background is not one
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[103.53, 116.28, 123.675],  # BGR
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False,
        pad_mask=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='VoVNet',
        arch='V-39',
        out_indices=(1, 2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        # ImageNet weights, see docs/converting.md. From scratch: init_cfg=None
        # and norm layers that learn, as in configs/nuclei.
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/vovnet39_ese.pth'),
    ),
    neck=dict(
        type='FPN',
        in_channels=[512, 768, 1024],
        out_channels=256,
        num_outs=5,
        add_extra_convs='on_output',  # P6 from P5
        relu_before_extra_convs=True,
    ),
    bbox_head=dict(
        type='FCOSHead',
        in_channels=256,
        feat_channels=256,
        stacked_convs=4,
        strides=[8, 16, 32, 64, 128],
        center_sampling=True,
        center_sample_radius=1.5,
        norm_on_bbox=True,
        centerness_on_reg=True,
        conv_bias=True,
        norm_cfg=dict(type='GN', num_groups=32, requires_grad=True),
        # Boxes reach out of the picture until the very end.
        bbox_coder=dict(type='DistancePointBBoxCoder', clip_border=False),
        loss_cls=dict(
            type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0
        ),
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
        loss_centerness=dict(
            type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0
        ),
    ),
    roi_head=dict(
        type='CenterMaskRoIHead',
        mask_roi_extractor=dict(
            type='AdaptiveRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0),
            out_channels=256,
            featmap_strides=[8, 16, 32],
        ),
        mask_head=dict(
            type='SAGMaskHead',
            num_convs=4,
            in_channels=256,
            conv_out_channels=256,
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0),
        ),
        mask_iou_head=dict(
            type='MaskIoUHead',
            num_convs=4,
            num_fcs=2,
            roi_feat_size=14,
            in_channels=256,
            conv_out_channels=256,
            fc_out_channels=1024,
        ),
    ),
    train_cfg=dict(
        proposal=dict(boxes, max_per_img=100),
        rcnn=dict(
            assigner=dict(
                type='MaxIoUAssigner',
                pos_iou_thr=0.5,
                neg_iou_thr=0.5,
                min_pos_iou=0.5,
                match_low_quality=False,
                ignore_iof_thr=-1,
            ),
            sampler=dict(
                type='RandomSampler',
                num=512,
                pos_fraction=0.25,
                neg_pos_ub=-1,
                add_gt_as_proposals=True,
            ),
            mask_size=28,
            mask_thr_binary=0.0,  # a logit: probability 0.5
        ),
    ),
    test_cfg=dict(bbox=boxes, rcnn=dict(mask_thr_binary=0.5)),
)
