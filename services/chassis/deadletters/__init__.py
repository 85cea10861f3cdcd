"""Records that could not be processed: kept, shown, tried again in order, or given up as a fact (design section 4)."""
