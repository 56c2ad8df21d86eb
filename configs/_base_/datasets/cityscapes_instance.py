# Cityscapes instance segmentation: eight classes, shorter side 800 to 1024 in training
# and 1024 at test (arXiv 1703.06870, appendix A). instancesonly_*.json come out of
# MMDetection's tools/dataset_converters/cityscapes.py. CityScapesMetric needs
# cityscapesscripts.
_base_ = './coco_instance.py'

data_root = 'data/cityscapes/'
metric_folder = './work_dirs/cityscapes_metric/instance'

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='RandomChoiceResize',
        scales=[(2048, side) for side in range(800, 1025, 32)],
        keep_ratio=True,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(2048, 1024), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=1,
    dataset=dict(
        type='CityscapesDataset',
        data_root=data_root,
        ann_file='annotations/instancesonly_filtered_gtFine_train.json',
        data_prefix=dict(img='leftImg8bit/train/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type='CityscapesDataset',
        data_root=data_root,
        ann_file='annotations/instancesonly_filtered_gtFine_val.json',
        data_prefix=dict(img='leftImg8bit/val/'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = [
    dict(
        type='CocoMetric',
        ann_file=data_root + 'annotations/instancesonly_filtered_gtFine_val.json',
        metric=['bbox', 'segm'],
    ),
    dict(
        type='NumPy2CityScapesMetric',
        seg_prefix=data_root + 'gtFine/val',
        outfile_prefix=metric_folder,
    ),
]
test_evaluator = val_evaluator

# The larger half of tta.py, for pictures of 2048 x 1024. Ours.
tta_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(4000, side), keep_ratio=True)
                for side in (800, 1024, 1200)
            ],
            {{_base_.tta_flips}},
            {{_base_.tta_truth}},
            {{_base_.tta_pack}},
        ],
    ),
]
