"""Frames of Modbus as bytes: requests and answers, and how they are cut out of a stream. Pure."""
