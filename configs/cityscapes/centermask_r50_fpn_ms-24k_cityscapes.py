_base_ = [
    '../_base_/models/centermask_r50.py',
    '../_base_/datasets/cityscapes_instance.py',
    '../_base_/schedules/sgd_cityscapes.py',
    '../_base_/default_runtime.py',
]

model = dict(num_classes=8)
