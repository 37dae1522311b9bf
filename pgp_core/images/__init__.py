"""Pictures from and to disk: any mode in, the same kind of picture out, atomic writes."""

from .finding import find_pictures, known_extensions
from .picture import Metadata, Picture
from .reading import open_picture
from .writing import FORMATS, check_size, save_picture

__all__ = [
    "FORMATS",
    "Metadata",
    "Picture",
    "check_size",
    "find_pictures",
    "known_extensions",
    "open_picture",
    "save_picture",
]
