"""Shows operators the partitions that a service reads, and lets a stopped one continue."""
