"""`python -m extended_dlc.app`: the app that `cdk deploy` runs, without a file of one's own. As `app.py`.

cdk deploy --app "python -m extended_dlc.app" -c settings=settings.yaml
"""

from __future__ import annotations

import os
import sys

from extended_dlc.app.define import define_stacks, new_app, read_app
from extended_dlc.app.read import SettingsError


def main() -> None:
    """Settings, stacks, synth; ends with the report of settings that are not valid."""
    app = new_app()
    try:
        define_stacks(app, read_app(app, cli_region=os.environ.get("CDK_DEFAULT_REGION")))
    except SettingsError as error:
        sys.exit(str(error))
    app.synth()


if __name__ == "__main__":
    main()
