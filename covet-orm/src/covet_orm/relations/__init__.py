"""Relations at run time: what `book.author`, `author.books` and `book.tags` are."""
