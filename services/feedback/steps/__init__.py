"""The kinds of steps that the feedback service does, each as one visible sequence; they run in a child process."""
