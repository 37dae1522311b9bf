"""Everything that needs a GPU, as one command for the minutes in which there is one; see README.md beside this."""
