# tta_flips.py at three sizes, around the 1.5 of the nuclei's test pipeline.
_base_ = './tta_flips.py'

tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale_factor=factor, keep_ratio=True)
                for factor in (1.25, 1.5, 1.75)
            ],
            {{_base_.tta_flips}},
            {{_base_.tta_truth}},
            {{_base_.tta_pack}},
        ],
    ),
]
