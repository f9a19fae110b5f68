"""The trainings of the settings: `extended_dlc/app/stacks/training_stack.py`."""

from extended_dlc.app.stacks.training_stack import TrainingStack

__all__ = ["TrainingStack"]
