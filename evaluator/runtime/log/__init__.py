"""The log: a port with Kafka's semantics, and its implementations."""
