"""headgate: an edge gateway from industrial field devices to MQTT."""

__version__ = "0.1.0"
