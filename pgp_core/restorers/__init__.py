"""Models with everything around them that turn an LQ canvas into an HQ picture; a folder a family."""
