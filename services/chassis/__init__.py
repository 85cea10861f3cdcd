"""How any service here consumes, decides, projects, publishes, serves and is observed."""
