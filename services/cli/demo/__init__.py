"""The one command that shows the whole: an event in, a better model out, every number measured."""
