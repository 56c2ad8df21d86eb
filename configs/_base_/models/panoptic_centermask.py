# Panoptic-CenterMask V-39 as released: CenterMask and the semantic branch of
# Panoptic FPN (arXiv 1901.02446, section 3.1) on one pyramid.
_base_ = './centermask.py'

model = dict(
    type='PanopticCenterMask',
    num_classes=80,  # things
    num_stuff_classes=53,
    data_preprocessor=dict(pad_seg=True, seg_pad_value=255),
    backbone=dict(out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[256, 512, 768, 1024], num_outs=6),  # P2 to P7
    semantic_head=dict(
        type='FullResolutionSemanticHead',
        in_channels=256,
        inner_channels=128,
        start_level=0,  # P2
        end_level=4,  # up to P5
        norm_cfg=dict(type='GN', num_groups=32, requires_grad=True),
        loss_seg=dict(
            type='CrossEntropyLoss',
            ignore_index=255,
            avg_non_ignore=True,
            loss_weight=0.5,
        ),
    ),
    panoptic_fusion_head=dict(type='HeuristicFusionHead'),
    test_cfg=dict(
        panoptic=dict(score_thr=0.5, mask_overlap=0.5, stuff_area_limit=4096)
    ),
)
