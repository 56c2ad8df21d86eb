_base_ = './rtmdet-ins_v39_ms-3x_coco.py'

model = dict(
    backbone=dict(arch='V-99', init_cfg=dict(checkpoint='checkpoints/vovnet99_ese.pth'))
)
