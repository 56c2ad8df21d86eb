# RTMDet-Ins-tiny (arXiv 2212.07784, section 3) without pretrained weights: CSPNeXt of
# a sixth of the depth and three eighths of the width, 96 channels behind it. BN where
# the paper's eight GPUs synchronise it; no mosaic, no mix-up, no moving average.
_base_ = './vovnet_rtmdet_ins.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='CSPNeXt',
        arch='P5',
        expand_ratio=0.5,
        deepen_factor=0.167,
        widen_factor=0.375,
        channel_attention=True,
        norm_cfg=dict(type='BN', requires_grad=True),
        act_cfg=dict(type='SiLU', inplace=True),
    ),
    neck=dict(in_channels=[96, 192, 384], out_channels=96, num_csp_blocks=1),
    bbox_head=dict(in_channels=96, feat_channels=96),
)
