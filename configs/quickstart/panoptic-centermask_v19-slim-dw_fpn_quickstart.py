# A few minutes on two CPU cores, from scratch, on make_quickstart_data.py --panoptic.
_base_ = [
    '../_base_/models/panoptic_centermask_narrow_scratch.py',
    '../_base_/datasets/quickstart_panoptic.py',
    '../_base_/schedules/adamw_short.py',
    '../_base_/default_runtime.py',
]

model = dict(
    num_classes=5,
    num_stuff_classes=2,
    # Pictures of 160 x 160 have a thirtieth of COCO's area.
    test_cfg=dict(panoptic=dict(stuff_area_limit=128)),
)
