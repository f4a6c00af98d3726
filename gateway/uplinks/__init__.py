"""From records to acknowledged publishes on other people's brokers."""
