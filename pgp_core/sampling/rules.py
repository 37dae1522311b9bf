"""The words for ways of sampling. They read without PyTorch."""

#: What Euler's steps start from, see :class:`pgp_core.sampling.options.SampleOptions`.
STARTS = ("noise", "lq", "lr")
#: How timesteps are spread over the schedule, by diffusers' names.
SPACINGS = ("leading", "trailing", "linspace")
#: How a result comes of what the UNet says. ``euler``: in steps, from noise or from the picture's latent.
#: ``residual``: in one call, z_H = z_L - UNet(z_L, t). ``x0``: in one call, z_H = (z_L - sqrt(1 - a_t) e) / sqrt(a_t).
EULER, RESIDUAL, X0 = RULES = ("euler", "residual", "x0")
