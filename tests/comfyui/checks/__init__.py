"""What ``driver.py`` runs inside ComfyUI's Python. Not collected by pytest: nothing here is named ``test_``."""
