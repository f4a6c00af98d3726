"""The embedded broker. Imports gateway.mqtt, gateway.journal, clock and metrics, and nothing else of ours."""
