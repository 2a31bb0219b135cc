"""Long proofs, each run by `nox -s proof -- NAME`, which writes `docs/evidence/NAME.md`."""
