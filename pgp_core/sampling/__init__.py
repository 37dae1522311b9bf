"""Sampling outside ComfyUI, with our own UNet; training's previews sample with diffusers'."""
