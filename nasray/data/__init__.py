"""Detection data: reading, checking, transforming and loading it."""
