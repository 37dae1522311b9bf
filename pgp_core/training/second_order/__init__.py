"""Second-order degradation (Real-ESRGAN): HQ to LQ through blur, resize, noise and JPEG, twice."""

from .kernels import FAMILIES, Kernel
from .parameters import SecondOrder
from .recipe import Noise, Pass, Recipe
from .steps import apply

__all__ = ["FAMILIES", "Kernel", "Noise", "Pass", "Recipe", "SecondOrder", "apply"]
