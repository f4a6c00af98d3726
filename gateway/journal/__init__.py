"""Frames of opaque bytes on disk: checksummed, recycled, recovered. Knows neither batches nor MQTT."""
