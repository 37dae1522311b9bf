"""Many pictures in one run: what each result is called, what is done already, what a failure of one costs."""
