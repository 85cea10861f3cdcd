"""The driver `kserve`: versions are served by InferenceServices of a Kubernetes cluster."""
