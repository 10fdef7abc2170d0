"""Part of CrossEAI."""
