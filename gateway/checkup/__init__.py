"""What a gateway file's broker and uplinks look like from outside, found out without starting them."""
