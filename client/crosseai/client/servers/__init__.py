"""Triton servers: how they are found, asked, shared, and started where none is given."""
