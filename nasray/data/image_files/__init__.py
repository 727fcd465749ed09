"""Image files from outside: decoded, their sizes and headers, and how their values become 8-bit RGB."""
