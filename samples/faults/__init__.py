"""The fault catalogue: one file for each fault, named on the command line as the file with dashes."""
