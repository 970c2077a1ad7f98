"""What every exporter here measures of itself: the line of JSON that `freshet bench` reads."""

import json
import resource
import time


class Meter:
    def __init__(self):
        self.cpu_s, self.since = cpu_s(), time.monotonic()
        self.rows = self.bytes = self.failed = 0

    def sent(self, key, value):
        self.rows += 1
        self.bytes += len(key) + len(value)

    def delivered(self, error, _message):
        self.failed += error is not None

    def tell(self):
        seconds = time.monotonic() - self.since
        if self.failed:
            raise SystemExit(f"{self.failed} of {self.rows} records were not delivered")
        print(json.dumps({
            "rows": self.rows, "bytes": self.bytes, "seconds": seconds, "cpu_s": cpu_s() - self.cpu_s,
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }))


def cpu_s():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
