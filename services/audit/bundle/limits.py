"""How much of a bundle is read: what somebody else wrote must not take a machine's memory."""

FILE_BYTES = 32 * 2**20
"""The most bytes of a file other than those of the artifact, which are read in blocks."""
