"""The services, how they are built (`chassis`) and how they are started (`cli`)."""
