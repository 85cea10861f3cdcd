"""What a job may name: folders, schemes and hosts. The decision is pure; the way there connects to the address that was checked."""
