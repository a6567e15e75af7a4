"""Carrying a decision out: the climb and the checks (pure), and the router that drives them live."""
