"""A discriminator for distillation to one step: what no mean over pictures can teach, the look of textures.

Projected heads (:mod:`.heads`) judge a frozen network's features of the picture, a U-Net (:mod:`.unet_discriminator`)
its pixels beside the canvas. How hard they pull at the picture, :mod:`.pull` says; :mod:`.adversary` trains them beside
the model; :mod:`.shifted` keeps the model from drawing what belongs to its own grid.
"""
