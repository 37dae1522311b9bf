"""A plan for SDXL's topology with gaps everywhere, and a stack that is gone: depths and blocks that stay."""

GAPS: dict[str, tuple[int, tuple[int, ...]]] = {
    "down_blocks.1.attentions.0": (2, (1,)),
    "down_blocks.2.attentions.1": (10, (3, 8)),
    "mid_block.attentions.0": (10, (9,)),
    "up_blocks.0.attentions.0": (10, (0, 3, 7, 9)),
    "up_blocks.0.attentions.2": (10, ()),
}
