"""Dead letters: how they are kept, limited, listed and copied to their topic, and whose later records wait behind one."""
