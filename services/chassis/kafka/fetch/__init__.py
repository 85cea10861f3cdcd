"""What comes between the broker's bytes and aiokafka's records, so that no batch stops a reader."""
