"""What runs in AWS: functions of Lambda and programs of CodeBuild. Each is a whole program, of boto3 alone."""
