"""Benchmarks on folders of pictures: pairs, results, tables, and a page to look at them."""
