"""PGP-DiffSR in plain PyTorch: prune plans, phase exchange, adapters, sampling. No ComfyUI inside."""

__version__ = "0.1.0"
