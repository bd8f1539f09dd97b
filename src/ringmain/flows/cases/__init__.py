"""Cases: recorded input, run through flows without a node, and compared with the output that is expected.

    layout      which files a case has
    tables      its CSV files as frames, and outputs as CSV
    recording   a log in memory, for flows to fold and to look back into
    play        flows over a recording: as it came, cut anew, with restarts
    compare     what differs

`ringmain test` finds and shows them; the node's own flows are not involved.
"""
