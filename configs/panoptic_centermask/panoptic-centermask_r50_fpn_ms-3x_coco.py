_base_ = [
    '../_base_/models/panoptic_centermask_r50.py',
    '../_base_/datasets/coco_panoptic.py',
    '../_base_/schedules/sgd_3x.py',
    '../_base_/default_runtime.py',
]
