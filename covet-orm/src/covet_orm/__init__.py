"""covet-orm: an asynchronous ORM with the vocabulary of Django and the speed of the drivers."""
