_base_ = [
    '../_base_/models/centermask.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/sgd_3x.py',
    '../_base_/default_runtime.py',
]
