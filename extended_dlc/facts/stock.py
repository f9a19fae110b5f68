"""Chooses the AWS image that is served without an extension."""

from __future__ import annotations

from extended_dlc.facts.catalog import INFERENCE, DlcImage, dlc_images, version


def pick_stock(transformers: str | None, accelerator: str, region: str) -> DlcImage:
    """The Hugging Face inference image with this transformers release (None for the newest), published in `region`.

    Raises `ValueError` with the releases that AWS has images for, or with the regions.
    """
    family = dlc_images(INFERENCE, accelerator=accelerator)
    releases = sorted({image.release for image in family}, key=version)
    found = [image for image in family if image.transformers == (transformers or releases[-1])]
    if not found:
        raise ValueError(
            f"AWS has published no {INFERENCE} image for {accelerator} with transformers {transformers}: take one of "
            f"{', '.join(releases)}, or extend one (ExtendedDlc)"
        )
    found[-1].uri(region)  # raises an error with the regions
    return found[-1]
