# Hundreds or thousands of objects in a picture: add this base to any config of
# CenterMask. Masks pass the heads in chunks and come out as COCO's RLE, so that memory
# does not grow with n x height x width (see docs/dense_scenes.md), and AP counts
# max_dets detections, where COCO's stops at 100.
model = dict(
    test_cfg=dict(
        bbox=dict(nms_pre=4000, max_per_img=2000),
        rcnn=dict(mask_format='rle', mask_chunk=100),
    )
)
val_evaluator = dict(type='DenseCocoMetric', max_dets=2000)
test_evaluator = val_evaluator
