"""Compares versions with each other, and recommends one for a goal, from what is registered about them. Pure but for `answers`."""
