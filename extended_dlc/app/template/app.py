"""The app that `cdk deploy` runs: the stacks of settings.json, and yours."""

import os
import sys

from extended_dlc.app.define import define_stacks, new_app, read_app
from extended_dlc.app.read import SettingsError

app = new_app()
try:
    stacks = define_stacks(app, read_app(app, cli_region=os.environ.get("CDK_DEFAULT_REGION")))
except SettingsError as error:
    sys.exit(str(error))

# stacks of your own go here; stacks.endpoints.endpoints["model"].grant_invoke(role) lets them ask the endpoint

app.synth()
