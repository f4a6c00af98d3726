"""Modbus: TCP now, serial lines later."""
