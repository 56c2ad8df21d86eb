_base_ = [
    '../_base_/models/centermask_lite_mv2.py',
    '../_base_/datasets/coco_instance_lite.py',
    '../_base_/schedules/sgd_4x.py',
    '../_base_/default_runtime.py',
]
