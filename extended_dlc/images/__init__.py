"""Which image serves or trains: extended, stock or from ECR; where it is built, and how it gets where it is used."""
