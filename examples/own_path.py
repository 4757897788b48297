"""Fly along a spline through your own keyframes, each with its own field of view, and write it for nerfstudio.

    python examples/own_path.py PATH.json
"""

import sys

import torch

from geometry.camera_files import write_cameras
