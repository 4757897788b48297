"""Depth: estimators behind one protocol, alignment, cleaning, and the photo's own lifting."""

from geometry.depth.align import DepthAlignment, align_depth
from geometry.depth.da3 import Da3Depth
from geometry.depth.discontinuities import clean_discontinuities, snap_depth_edges
from geometry.depth.embedded import EmbeddedDepth
from geometry.depth.estimator import DepthEstimator, DepthMap
from geometry.depth.files import FileDepth
from geometry.depth.lift import lift_depth, lift_photo
from geometry.depth.mixed_pixels import clear_far, mixed
from geometry.depth.moge import MogeDepth
from geometry.depth.plane import PlaneDepth
from geometry.depth.transformers import TransformersDepth

__all__ = [
    "Da3Depth",
    "DepthAlignment",
    "DepthEstimator",
    "DepthMap",
    "EmbeddedDepth",
    "FileDepth",
    "MogeDepth",
    "PlaneDepth",
    "TransformersDepth",
    "align_depth",
    "clean_discontinuities",
    "clear_far",
    "lift_depth",
    "lift_photo",
    "mixed",
    "snap_depth_edges",
]
