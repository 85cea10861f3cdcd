"""Tests of bridges with the real systems that they mirror into."""
