"""What runs in AWS: functions of Lambda and programs of CodeBuild. Each is a whole program, of boto3 alone."""

from pathlib import Path

FUNCTIONS = Path(__file__).parent / "functions"
"""The folder of the Lambda functions, which is uploaded as a whole."""
