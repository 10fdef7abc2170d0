"""Scoring by the workers of a Ray cluster."""
