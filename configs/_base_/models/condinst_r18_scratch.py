# CondInst R-18 (arXiv 2003.05664) without pretrained weights: FCOS, whose boxes carry
# the 169 weights of three 1x1 convs of 8 channels (section 3.1) over the 8 channels
# of a mask branch of four convs with 128 channels (section 3.2), dice loss on masks
# at a quarter of the picture's size (section 3.3).
_base_ = ['./vovnet_fcos.py', '../resnet18_scratch.py', '../fcos_scratch.py']

model = dict(
    type='CondInst',
    backbone={{_base_.resnet18_scratch}},
    neck=dict(in_channels={{_base_.resnet18_channels}}),
    bbox_head=dict(
        type='CondInstBboxHead', num_params=169, init_cfg={{_base_.fcos_scratch}}
    ),
    mask_head=dict(
        type='CondInstMaskHead',
        num_layers=3,
        feat_channels=8,
        size_of_interest=8,
        mask_out_stride=4,
        max_masks_to_train=300,
        mask_feature_head=dict(
            in_channels=256,
            feat_channels=128,
            start_level=0,
            end_level=2,
            out_channels=8,
            mask_stride=8,
            num_stacked_convs=4,
            norm_cfg=dict(type='BN', requires_grad=True),
        ),
        loss_mask=dict(type='DiceLoss', use_sigmoid=True, activate=True, eps=5e-6),
    ),
    test_cfg=dict(mask_thr=0.5),
)
