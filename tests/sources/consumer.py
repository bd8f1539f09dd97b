"""A process that takes a broker's messages into a log until it is killed: DIRECTORY URL."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.runtime.counters import Counters
from ringmain.runtime.supervisor import Backoff, Supervisor
from ringmain.sources.mapping import Mapper, MapSettings
from ringmain.sources.mqtt import MqttSource
from ringmain.sources.mqtt_client_settings import MqttSettings

MAP = MapSettings(topic="meters/{meter}/{quantity}", series="{meter}/{quantity}", time="t", value="v")


def main(directory: Path, url: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    log = open_log(directory)
    registry = SeriesRegistry(log)
    settings = MqttSettings(url=url, topics=["meters/#"], map=[MAP])
    source = MqttSource("city", "test", settings, Mapper("city", [MAP], registry), directory)
    supervisor = Supervisor(log, registry, Counters())
    supervisor.add("city", "mqtt", source, backoff=Backoff(0.01, 0.1))
    supervisor.start()
    print("running", flush=True)
    signal.sigwait({signal.SIGTERM})
    supervisor.stop()
    log.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
