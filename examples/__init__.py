"""Services to learn the chassis from; none of them is part of NeuroWeaver."""
