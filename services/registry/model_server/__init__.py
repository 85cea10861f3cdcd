"""The process that serves one base model and its adapters with an OpenAI-compatible API, on this machine only.

It is the only part of the registry that imports torch. It serves what its parent names over a pipe; who calls it over HTTP can load
nothing.
"""
