"""What a request says, read and checked: bodies, media, forms, parameters and the limits of each."""
