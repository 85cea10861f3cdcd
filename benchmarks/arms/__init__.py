"""What is compared: each arm is a process of its own that turns a topic of requests into a topic of answers."""
