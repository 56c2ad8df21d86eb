_base_ = './centermask-lite_v39_fpn_ms-4x_coco.py'

model = dict(
    backbone=dict(
        arch='V-19-dw', init_cfg=dict(checkpoint='checkpoints/vovnet19_dw_ese.pth')
    )
)
