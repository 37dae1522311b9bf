"""Training: data, degradation, losses, the runner of a TOML file's run, and the nano model's stages.

Needs the ``train`` extra; nothing that ComfyUI's nodes use imports this package.
"""
