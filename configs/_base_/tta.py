# Test-time augmentation with masks, `--tta` in tools/test.py: nine scales, each as it
# is and mirrored. The scales are the defaults of the framework that the released
# models were made with (shorter side 400 to 1200 in steps of 100, longer at most
# 4000); we know of no list for the paper's 42.5 AP. It costs about twenty plain runs:
# take fewer scales where time counts. NMS and the number of boxes are those of the
# model's test_cfg.
tta_model = dict(type='MaskTTAModel')

tta_sizes = [
    dict(type='Resize', scale=(4000, side), keep_ratio=True)
    for side in range(400, 1201, 100)
]
tta_flips = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
tta_truth = [dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
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
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='TestTimeAug', transforms=[tta_sizes, tta_flips, tta_truth, tta_pack]),
]
