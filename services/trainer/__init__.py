"""Long work on models: prepares data, trains, samples, evaluates, in children that survive a crash of either side."""
