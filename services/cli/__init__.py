"""The `neuroweaver` command: composes the services and talks to them."""
