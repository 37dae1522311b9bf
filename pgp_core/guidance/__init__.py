"""Guidance of a UNet by the LQ picture: PEAM, LQ adapter, FaithDiff's alignment."""
