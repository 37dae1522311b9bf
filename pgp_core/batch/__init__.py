"""Many pictures in one run: what each result is called, what is done already, and what happens when one fails."""
