"""Pictures from and to disk, and the canvases between: any mode in, the same kind of picture out, written whole."""
