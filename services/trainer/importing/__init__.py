"""Reads models that were made elsewhere: chooses their files, copies them so that what is checked is what is stored, and reads their card."""
