# Cell nuclei of the 2018 Data Science Bowl (BBBC038), one class, from scratch.
_base_ = [
    '../_base_/models/centermask_lite_scratch.py',
    '../_base_/datasets/nuclei_instance.py',
    '../_base_/schedules/adamw_1000.py',
    '../_base_/default_runtime.py',
]

# Pictures hold up to 375 nuclei, where COCO's keep 50.
model = dict(num_classes=1, test_cfg=dict(bbox=dict(max_per_img=400)))
