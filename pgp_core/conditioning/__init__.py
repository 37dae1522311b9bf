"""Encoded prompts, in files and from text."""
