"""How it goes out: one module a kind of receiver, run by `ringmain.runtime.sink_runner`."""
