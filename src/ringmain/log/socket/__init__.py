"""The log for other processes: the Unix-socket protocol, its server, and `RemoteLog`, the second engine."""
