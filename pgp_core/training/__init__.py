"""Training: synthetic pictures, degradation, losses, one resumable loop, and the nano model's stages.

Needs the ``train`` extra; nothing that ComfyUI's nodes use imports this package.
"""
