_base_ = './mask-rcnn_v39_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(arch='V-99', init_cfg=dict(checkpoint='checkpoints/vovnet99_ese.pth'))
)
