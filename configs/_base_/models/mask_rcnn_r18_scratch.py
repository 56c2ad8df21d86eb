# Mask R-CNN R-18 (arXiv 1703.06870, figure 4) without pretrained weights. A picture
# trains on 64 boxes instead of 512, as in centermask_lite_scratch.py.
_base_ = ['./vovnet_mask_rcnn.py', '../resnet18_scratch.py']

model = dict(
    backbone={{_base_.resnet18_scratch}},
    neck=dict(in_channels={{_base_.resnet18_channels}}),
    train_cfg=dict(rcnn=dict(sampler=dict(num=64))),
)
