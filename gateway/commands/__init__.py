"""Commands: topic -> tag -> limits -> write -> read back -> reply, whichever way a command comes."""
