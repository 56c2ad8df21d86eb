# VoVNetV2 (arXiv 1911.06667, section 3.3) and FPN (arXiv 1612.03144) for any detector
# of MMDetection. The sizes differ in `arch`, checkpoint and the neck's `in_channels`.
custom_imports = dict(imports=['mmdet_centermask'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[103.53, 116.28, 123.675],  # BGR, as the ImageNet weights want it
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False,
        pad_mask=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='VoVNet',
        arch='V-39',
        out_indices=(0, 1, 2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        # ImageNet weights, see docs/converting.md. From scratch: init_cfg=None,
        # norm_cfg=dict(requires_grad=True) and norm_eval=False.
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/vovnet39_ese.pth'),
    ),
    neck=dict(
        type='FPN', in_channels=[256, 512, 768, 1024], out_channels=256, num_outs=5
    ),
)
