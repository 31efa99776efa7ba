"""What real Task07 cases measure, as quantile tables, and one case's draw from them.

Source: the 281 training cases of the Medical Segmentation Decathlon, Task07 (Simpson et al. 2019,
arXiv:1902.09063), measured from their headers and label maps. The largest tumours (the last percent, up to
732 ml) are left out: the table of tumours ends at the 99th percentile. The bounding boxes are medians over the
194 Decathlon cases that the PANORAMA challenge labelled again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.phantom.draws import spread

PROBABILITIES = (0.0, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 1.0)
PANCREAS_ML = (20.3, 29.1, 32.6, 41.1, 57.3, 77.0, 104.2, 132.7, 147.0, 172.8, 201.4)
TUMOUR_ML = (0.41, 0.96, 1.19, 1.75, 2.78, 5.78, 10.27, 18.9, 38.9, 69.7, 140.5)
SPACING_X_MM = (0.605, 0.645, 0.656, 0.695, 0.74, 0.803, 0.893, 0.951, 0.977, 0.977, 0.977)

# (slice spacing in mm, how many of the 281 cases have it)
SPACING_Z_COUNTS = (
    (0.7, 1), (1.25, 3), (1.5, 3), (2.0, 1), (2.5, 218), (3.0, 7), (3.75, 2), (4.0, 2), (5.0, 43), (7.5, 1),
)  # fmt: skip

# Slices for the two common spacings, and the extent of the scan in mm for the others.
SLICE_PROBABILITIES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
SLICES_AT_2_5_MM = (51, 74.7, 79, 85.2, 93, 103, 111, 117, 192)
SLICES_AT_5_MM = (37, 41.1, 43.2, 47.5, 57, 85, 93.6, 96.9, 98)
EXTENT_THINNER_MM = (151, 170, 189, 210, 251, 316, 494, 510, 526)
EXTENT_THICKER_MM = (206, 212, 224, 298, 402, 432, 463, 477, 492)

PERCENT_PANCREAS_MEDIAN = 0.178
PERCENT_TUMOUR_MEDIAN = 0.0131
PANCREAS_BOX_XYZ_MM_MEDIAN = (129.5, 71.6, 82.5)
TUMOUR_BOX_XYZ_MM_MEDIAN = (25.4, 22.6, 22.5)

MATRIX = 512
HEAD_SHARE = 0.65  # of tumours: 60 to 70 % of pancreatic cancers lie in the head


@dataclass(frozen=True)
class CaseFacts:
    """The measurements that one case has to have.

    Attributes
    ----------
    spacing_zyx_mm : slice spacing and pixel size; pixels are square.
    slices : number of slices of the full-size scan.
    pancreas_ml, tumour_ml : volumes of labels 1 and 2 over the whole body.
    tumour_place : position along the gland, 0 = end of the head, 1 = tip of the tail.

    """

    spacing_zyx_mm: tuple[float, float, float]
    slices: int
    pancreas_ml: float
    tumour_ml: float
    tumour_place: float


def quantile(table: tuple[float, ...], u: float, probabilities: tuple[float, ...] = PROBABILITIES) -> float:
    """Return the value at probability `u`, linear between the entries of the table."""
    return float(np.interp(u, probabilities, table))


def draw_facts(seed: int, case: int) -> CaseFacts:
    """Draw the measurements of a case; a function of (seed, case) only."""
    u_pancreas, u_tumour, u_pixel, u_thickness, u_slices, u_place = spread(seed, case, 6)
    counts: NDArray[np.int64] = np.array([count for _, count in SPACING_Z_COUNTS])
    chosen = int(np.searchsorted(np.cumsum(counts) / counts.sum(), u_thickness, side="right"))
    thickness = SPACING_Z_COUNTS[chosen][0]
    if thickness == 2.5:
        slices = quantile(SLICES_AT_2_5_MM, u_slices, SLICE_PROBABILITIES)
    elif thickness == 5.0:
        slices = quantile(SLICES_AT_5_MM, u_slices, SLICE_PROBABILITIES)
    else:
        extents = EXTENT_THINNER_MM if thickness < 2.5 else EXTENT_THICKER_MM
        slices = quantile(extents, u_slices, SLICE_PROBABILITIES) / thickness
    pixel = quantile(SPACING_X_MM, u_pixel)
    if u_place < HEAD_SHARE:
        place = 0.04 + 0.22 * u_place / HEAD_SHARE
    else:
        place = 0.34 + 0.56 * (u_place - HEAD_SHARE) / (1.0 - HEAD_SHARE)
    return CaseFacts(
        spacing_zyx_mm=(thickness, round(pixel, 5), round(pixel, 5)),
        slices=round(slices),
        pancreas_ml=quantile(PANCREAS_ML, u_pancreas),
        tumour_ml=quantile(TUMOUR_ML, u_tumour),
        tumour_place=place,
    )
