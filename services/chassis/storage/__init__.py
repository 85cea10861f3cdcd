"""Files: artifacts by digest, the stores and sources they come from, and how long they are kept."""
