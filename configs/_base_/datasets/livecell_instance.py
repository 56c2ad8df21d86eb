_base_ = '../tta_flips.py'

# LIVECell (Nature Methods 2021, s41592-021-01249-6): cells of eight lines, one class,
# 704 x 520 grey pixels, with the sizes of the data set's own CenterMask models. The
# annotations name pictures without a folder: put those of a split into one.
dataset_type = 'CocoDataset'
data_root = 'data/livecell/'
metainfo = dict(classes=('cell',), palette=[(220, 20, 60)])

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='RandomChoiceResize',
        scales=[(1333, side) for side in (440, 480, 520, 560, 580, 620)],
        keep_ratio=True,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/livecell_coco_train.json',
        data_prefix=dict(img='images/livecell_train_val_images/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/livecell_coco_val.json',
        data_prefix=dict(img='images/livecell_train_val_images/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/livecell_coco_test.json',
        data_prefix=dict(img='images/livecell_test_images/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)

metrics = dict(type='DenseCocoMetric', max_dets=2000, metric=['bbox', 'segm'])
val_evaluator = dict(metrics, ann_file=data_root + 'annotations/livecell_coco_val.json')
test_evaluator = dict(
    metrics, ann_file=data_root + 'annotations/livecell_coco_test.json'
)

tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(1333, 800), keep_ratio=True)],
            {{_base_.tta_flips}},
            {{_base_.tta_truth}},
            {{_base_.tta_pack}},
        ],
    ),
]
