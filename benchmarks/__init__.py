"""Measurements of Covet beside its peers; run one with `nox -s bench -- NAME`."""
