"""The demo's municipal utility: simulated devices that speak MQTT from processes of their own.

The room exists so that the product can be shown, and held to account, with realistic input. It promises
exact book-keeping: whatever a simulated device was told to be received is in the tally. It knows nothing of
the product: no import from the other rooms except `ringmain.model.duration`, no path but MQTT.

    profiles.py   measured household days, load profiles and weather, read from data files, cached
    fleet.py      which devices there are, where they are, what their series are called
    signals.py    what a device measures at an instant
    messages.py   how it says so: payloads, well-formed and not
    publisher.py  the MQTT client
    schedule.py   which faults are injected, when
    faults.py     what a fault does to a meter's readings
    tally.py      what was acknowledged, exactly
    compare.py    the tally against the node's counts
    gateways.py   the gateways of one simulator process, at work
    __main__.py   one simulator process, ruled over a pipe
"""
