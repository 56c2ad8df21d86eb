# ResNet-18 (arXiv 1512.03385, table 1) from random weights: no stage is frozen and the
# norm layers learn. A model takes it as `_base_` and writes
#     model = dict(backbone={{_base_.resnet18_scratch}}, ...)
resnet18_scratch = dict(
    _delete_=True,
    type='ResNet',
    depth=18,
    frozen_stages=-1,
    norm_cfg=dict(type='BN', requires_grad=True),
    norm_eval=False,
)
resnet18_channels = [64, 128, 256, 512]
