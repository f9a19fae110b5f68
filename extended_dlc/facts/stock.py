"""Which image of AWS's serves as it is."""

from __future__ import annotations

from extended_dlc.facts.catalog import INFERENCE, DlcImage, dlc_images, version


def pick_stock(transformers: str | None, accelerator: str, region: str) -> DlcImage:
    """The Hugging Face inference image with this transformers release (None: the newest), as published in `region`.

    A `ValueError` with the releases that AWS has images with, or with the regions.
    """
    family = dlc_images(INFERENCE, accelerator=accelerator)
    releases = sorted({image.release for image in family}, key=version)
    found = [image for image in family if image.transformers == (transformers or releases[-1])]
    if not found:
        raise ValueError(
            f"AWS has published no {INFERENCE} image for {accelerator} with transformers {transformers}: take one of "
            f"{', '.join(releases)}, or extend one (ExtendedDlc)"
        )
    found[-1].uri(region)  # its error names the regions there are
    return found[-1]
