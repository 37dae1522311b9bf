"""Pictures of redundancy: box plots, heat map, lines over timesteps, feature maps, phase (Figures 1 and 3).

Every function returns a picture as ``(height, width, 3)`` uint8 and takes ``width`` and ``height`` in pixels; a
larger one is sharper, not roomier, so text keeps its share of the picture. Drawn by matplotlib, which is
imported when a function is called.
"""

from .boxes import boxes
from .heat_map import heat_map
from .module_maps import module_maps
from .over_time import over_time
from .strips import feature_maps, phase_strip, visible_phase

__all__ = ["boxes", "feature_maps", "heat_map", "module_maps", "over_time", "phase_strip", "visible_phase"]
