"""The images of endpoints and trainings: extended, stock or from ECR; their builds and their copies."""
