"""Where a value lives in a device, and how its bytes become one and back. Pure."""
