"""What probe, read, record and replay ask of a Modbus line."""
