"""What `large_pictures_on_nano.py` measures, a file for each."""
