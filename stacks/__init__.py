"""The app's stacks, which are in the package so that an app of the wheel has them too: `extended_dlc/app/stacks`."""
