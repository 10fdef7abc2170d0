"""Which files are to be scored: directories, URLs, manifests, and what arrives."""
