"""What a result becomes: JSON, images, arrays, subtitles and sound files."""
