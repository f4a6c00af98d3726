"""Built-in drivers. They enter by the entry-point group headgate.drivers, as a stranger's would."""
