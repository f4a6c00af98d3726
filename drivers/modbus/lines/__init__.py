"""Where a line leads to, and how requests reach the units on it and answers come back."""
