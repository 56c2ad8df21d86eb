_base_ = './panoptic-centermask_v39_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(arch='V-57', init_cfg=dict(checkpoint='checkpoints/vovnet57_ese.pth'))
)
