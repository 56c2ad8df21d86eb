# CenterMask-Lite with the stock MobileNetV2.
_base_ = './centermask_lite.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(2, 4, 6),  # after blocks 6, 13 and 17
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        # ImageNet weights for BGR pixels of std 1. The public ones want RGB
        # divided by std: fold that into their first conv, or nothing is learnt.
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/mobilenet_v2.pth'),
    ),
    neck=dict(in_channels=[32, 96, 320]),
)
# The stock network computes a last 1x1 conv that nothing here reads.
find_unused_parameters = True
