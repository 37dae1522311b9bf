"""Sampling on diffusers' backbone."""
