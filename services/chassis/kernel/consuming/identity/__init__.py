"""Which log a service reads: kept beside its positions, compared, and what is not what was read stops its partitions."""
