"""DICOM for a product: a clip in, frame by frame, and a segmentation of it out.

``clip = open_clip("us.dcm")`` has a frame at each index, decoded when it is asked for, as grey or RGB: YBR is converted, a
palette applied, MONOCHROME1 turned so that black is 0. ``clip.decoder`` names what decodes it. ``open_series``
reads a folder of slices as one volume with its affine. ``write_segmentation`` writes
what a model found, for clips that have no frame of reference too, which highdicom refuses. Both need pydicom, which
``edgedeploy[dicom]`` brings, and compressed files a decoder.
"""

from edgedeploy.runtime.dicom.clip import Clip, Decoder, DicomError, open_clip
from edgedeploy.runtime.dicom.segmentation import Segment, write_segmentation
from edgedeploy.runtime.dicom.series import Series, open_series

__all__ = ["Clip", "Decoder", "DicomError", "Segment", "Series", "open_clip", "open_series", "write_segmentation"]
