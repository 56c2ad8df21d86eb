# Test-time augmentation for pictures without an up or down (cells, the quickstart's
# shapes): the picture and its three mirror images, at the size of the test pipeline.
# Ours, not from the paper.
tta_model = dict(type='MaskTTAModel')

tta_sizes = [dict(type='Resize', scale_factor=1.0, keep_ratio=True)]
tta_flips = [
    dict(type='RandomFlip', prob=0.0),
    dict(type='RandomFlip', prob=1.0, direction='horizontal'),
    dict(type='RandomFlip', prob=1.0, direction='vertical'),
    dict(type='RandomFlip', prob=1.0, direction='diagonal'),
]
tta_truth = [
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=True)
]
tta_pack = [
    dict(
        type='PackDetInputs',
        meta_keys=(
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
            'flip',
            'flip_direction',
        ),
    )
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[tta_sizes, tta_flips, tta_truth, tta_pack]),
]
