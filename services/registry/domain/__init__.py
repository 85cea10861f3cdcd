"""Contains the registry's decisions about attempts at `register` steps, and about models, versions and aliases. Pure."""
