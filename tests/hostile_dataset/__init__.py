"""Somebody else's dataset: it may not write, move, delete or read outside itself, run code, hang, or take memory by a
number that it claims. Each is made from a good one, and refused with an error of one line."""
