"""What an operator sees of the partitions that a service reads, and how one that stands goes on."""
