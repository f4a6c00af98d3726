"""The durable queue: records with sequence numbers, a cursor per uplink."""
