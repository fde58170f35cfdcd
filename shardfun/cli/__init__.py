"""The command line: one file per command, and everything that talks to a person on a terminal.

Commands decide nothing: they read arguments, call what is below, and show what it says.
"""
