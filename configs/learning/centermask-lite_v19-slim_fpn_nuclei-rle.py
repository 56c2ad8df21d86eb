# The nuclei config; masks leave as RLE, which is what the metric counts.
_base_ = '../nuclei/centermask-lite_v19-slim_fpn_nuclei.py'

model = dict(
    test_cfg=dict(
        rcnn=dict(mask_format='rle'),
    ),
)
