"""Measuring how redundant a UNet's blocks are (the paper's Section 3.1)."""
