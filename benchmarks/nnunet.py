"""nnU-Net's plans as its planner would write them for the paper's grid: one place for the benchmarks that call it."""

from __future__ import annotations

from typing import Any

from benchmarks.volumes import NETWORK_SPACING_ZYX_MM

DATASET = {
    "labels": {"background": 0, "pancreas": 1, "tumour": 2},
    "channel_names": {"0": "CT"},
    "file_ending": ".nii.gz",
}


def plans(
    patch_shape_zyx: tuple[int, int, int], window_hu: tuple[float, float], mean: float, std: float
) -> Any:
    """Return a PlansManager with its default resampling: cubic for images, linear for scores, planes apart from z."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    def resampling(what: str, *, is_seg: bool, order: int) -> dict[str, Any]:
        kwargs = {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}
        return {
            f"resampling_fn_{what}": "resample_data_or_seg_to_shape",
            f"resampling_fn_{what}_kwargs": kwargs,
        }

    low, high = window_hu
    return PlansManager(
        {
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {
                "0": {"percentile_00_5": low, "percentile_99_5": high, "mean": mean, "std": std}
            },
            "configurations": {
                "3d_fullres": {
                    "architecture": {},
                    "spacing": list(NETWORK_SPACING_ZYX_MM),
                    "patch_size": list(patch_shape_zyx),
                    "normalization_schemes": ["CTNormalization"],
                    "use_mask_for_norm": [False],
                    **resampling("data", is_seg=False, order=3),
                    **resampling("seg", is_seg=True, order=1),
                    **resampling("probabilities", is_seg=False, order=1),
                }
            },
        }
    )
