"""Sources and sinks of one's own: changes of tickets polled from a database, and how many are open written to another one."""
