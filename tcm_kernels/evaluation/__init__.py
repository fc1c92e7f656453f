"""Whether one threshold is good for every class, and which one to ship.

embeddings -> class_curves -> ClassCurves -> every number, threshold, calibration and picture
"""

from .curves import ClassCurves, class_curves

__all__ = ["ClassCurves", "class_curves"]
