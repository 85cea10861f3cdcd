"""Describes each training method in one file that reads like a recipe: its examples, its settings and its trainer in TRL."""
