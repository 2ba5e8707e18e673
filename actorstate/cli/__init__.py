"""The command line: `main` finds the command, one module a group of commands carries it out."""
