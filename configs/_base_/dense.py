# Hundreds or thousands of objects in a picture. Any config of CenterMask takes these
# numbers as `_base_` and writes
#     model = dict(test_cfg={{_base_.dense_test_cfg}})
#     test_evaluator = {{_base_.dense_evaluator}}
# The caps are those of LIVECell's own CenterMask models: 4000 candidates on a level,
# 3000 boxes to train masks on, 2000 in the answer. Masks pass the heads in chunks and
# come out as COCO's RLE, so that memory does not grow with n x height x width (see
# docs/dense_scenes.md); AP counts all 2000, where COCO's stops at 100.
dense_train_cfg = dict(
    proposal=dict(nms_pre=4000, max_per_img=3000), rcnn=dict(sampler=dict(num=3000))
)
dense_test_cfg = dict(
    bbox=dict(nms_pre=4000, max_per_img=2000),
    rcnn=dict(mask_format='rle', mask_chunk=100),
)
dense_evaluator = dict(type='DenseCocoMetric', max_dets=2000)
