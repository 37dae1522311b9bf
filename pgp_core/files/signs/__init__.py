"""The names and shapes that each kind of file is known by; a table a subject."""
