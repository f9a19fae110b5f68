"""The app of image stacks: `python -m extended_dlc.platform`."""
