"""What holds for all tests: a call of the CDK's that it will remove fails, as in the builds of many who use it."""

import os

os.environ.setdefault("JSII_DEPRECATED", "fail")
