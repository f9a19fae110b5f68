"""Encoding of results: JSON, images, arrays, subtitles and audio files."""
