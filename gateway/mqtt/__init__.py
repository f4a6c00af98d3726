"""The protocol itself, MQTT 3.1.1 and 5.0, pure: bytes -> events -> bytes. No socket, clock or await in this room."""
