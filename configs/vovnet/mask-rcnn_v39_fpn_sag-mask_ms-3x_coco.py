# The mask branch of CenterMask (arXiv 1911.06667, section 3.2) in a stock Mask R-CNN:
# spatial attention, and RoI levels by the share of the picture that a box covers.
_base_ = './mask-rcnn_v39_fpn_ms-3x_coco.py'

model = dict(
    roi_head=dict(
        mask_roi_extractor=dict(type='AdaptiveRoIExtractor'),
        mask_head=dict(type='SAGMaskHead'),
    )
)
