_base_ = [
    '../_base_/models/vovnet_rtmdet_ins.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/adamw_3x.py',
    '../_base_/default_runtime.py',
]
