"""Erases rows of data sets: finds where they are, tells it, removes their bytes, and marks the versions that learnt from them."""
