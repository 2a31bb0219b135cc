"""Files of migrations: writing, finding, loading and ordering them."""
