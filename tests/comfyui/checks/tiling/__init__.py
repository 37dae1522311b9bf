"""PGP-DiffSR Tiling on nano, a file for each subject."""
