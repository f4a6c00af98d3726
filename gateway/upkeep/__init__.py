"""What a person does with a spool's folder: look, count, copy, mend, give up, on this card or on another."""
