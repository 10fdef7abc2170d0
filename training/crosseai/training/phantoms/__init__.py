"""Chest phantoms: drawn radiographs with planted findings and exact boxes.

They stand in for patients wherever a test, a demonstration or a benchmark must not depend on real ones. A phantom is
drawn as a radiograph is taken: lengths in tissue along every ray, attenuation, scatter, noise, detector, window. What
is learnt from them says nothing about patients.
"""

from crosseai.training.phantoms.anatomy import Anatomy, draw_anatomy
from crosseai.training.phantoms.phantom import Phantom, draw_phantom
from crosseai.training.phantoms.writer import PhantomSet, write_phantoms

__all__ = ["Anatomy", "Phantom", "PhantomSet", "draw_anatomy", "draw_phantom", "write_phantoms"]
