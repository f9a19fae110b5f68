"""What maintainers of this repository run; no part of the package."""
