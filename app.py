"""The app that `cdk deploy` runs: settings, stacks, synth. From the wheel: `python -m extended_dlc.app`."""

import os
import sys

from extended_dlc.app.define import define_stacks, new_app, read_app
from extended_dlc.app.read import SettingsError

app = new_app()
try:
    read = read_app(app, cli_region=os.environ.get("CDK_DEFAULT_REGION"))
    define_stacks(app, read)
except SettingsError as error:
    sys.exit(str(error))
app.synth()
