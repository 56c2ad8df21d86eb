# LVIS v1 on COCO's pictures: 1203 classes, rare ones repeated up to a frequency of
# 0.001 (arXiv 1908.03195, appendix B.2). Sizes as in coco_instance.py. Both the
# data set and its metric need the package lvis.
_base_ = './coco_instance.py'

data_root = 'data/lvis_v1/'

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ClassBalancedDataset',
        oversample_thr=1e-3,
        dataset=dict(
            type='LVISV1Dataset',
            data_root=data_root,
            ann_file='annotations/lvis_v1_train.json',
            data_prefix=dict(img=''),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline={{_base_.train_pipeline}},
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(
        type='LVISV1Dataset',
        data_root=data_root,
        ann_file='annotations/lvis_v1_val.json',
        data_prefix=dict(img=''),
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='NumPy2LVISMetric', ann_file=data_root + 'annotations/lvis_v1_val.json'
)
test_evaluator = val_evaluator

# LVIS counts 300 answers in a picture, however unlikely (arXiv 1908.03195). A chunk
# keeps the 1203 maps of each box from filling a gigabyte.
lvis_test_cfg = dict(
    bbox=dict(score_thr=1e-4, max_per_img=300), rcnn=dict(mask_chunk=50)
)
