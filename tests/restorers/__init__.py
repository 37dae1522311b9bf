"""What holds for every family of restorers. A package, so that its tests can import the makers beside them."""
