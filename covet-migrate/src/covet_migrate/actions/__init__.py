"""What changes in a schema, in parts small enough to say what each one locks, rewrites or loses.

An operation of a migration becomes actions (`comparing`), these become statements (`covet_migrate.ddl`).
"""
