_base_ = [
    '../_base_/models/vovnet_fcos.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/sgd_3x.py',
    '../_base_/default_runtime.py',
]
