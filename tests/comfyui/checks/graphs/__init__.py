"""Graphs as people build them around a guided MODEL."""
