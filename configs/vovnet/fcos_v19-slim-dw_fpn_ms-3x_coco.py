_base_ = './fcos_v39_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(
        arch='V-19-slim-dw',
        init_cfg=dict(checkpoint='checkpoints/vovnet19_slim_dw_ese.pth'),
    ),
    neck=dict(in_channels=[112, 256, 384, 512]),
)
