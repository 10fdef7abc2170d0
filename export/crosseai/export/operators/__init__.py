"""Reverse rules, by kind of operator; :mod:`crosseai.export.rules` says what a rule is."""
