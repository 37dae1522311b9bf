"""Precisions by the names that options have."""

#: Option to PyTorch's name.
DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
