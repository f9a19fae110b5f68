"""What can be asked for: frozen dataclasses that check themselves, without the CDK.

The constructs take them, and the app's settings are read into them.
"""
