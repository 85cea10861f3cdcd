"""What trainer and local judge have in common: how models are loaded and in which numbers they compute. It knows torch, and no service."""
