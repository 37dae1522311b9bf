"""Full-size models of SDXL's kind: FaithDiff, PGP-DiffSR, plain SDXL."""
