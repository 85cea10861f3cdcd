"""The hand-written parts of the demo's data: what customers of a device shop write, and how agents answer."""
