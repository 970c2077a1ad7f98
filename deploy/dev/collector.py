"""A collector of traces that shares no code with Freshet: takes OTLP over HTTP (POST /v1/traces, protobuf) on 127.0.0.1,
decodes it by OpenTelemetry's own package, and prints a line of JSON for each span. The first line tells the port.

  collector.py [--port N]
"""

import argparse
import gzip
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


def plain(value):
    """A value of OTLP as JSON has it."""
    kind = value.WhichOneof("value")
    return None if kind is None else str(value.array_value) if kind == "array_value" else getattr(value, kind)


def fields(attributes):
    return {one.key: plain(one.value) for one in attributes}


class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path != "/v1/traces" or self.headers.get("content-type") != "application/x-protobuf":
            self.answer(404, b"")
            return
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.tell(resource.resource, span)
        self.answer(200, ExportTraceServiceResponse().SerializeToString())

    def tell(self, resource, span):
        line = {
            "trace": span.trace_id.hex(),
            "span": span.span_id.hex(),
            "parent": span.parent_span_id.hex(),
            "name": span.name,
            "start": span.start_time_unix_nano,
            "end": span.end_time_unix_nano,
            "status": span.status.code,
            "attributes": fields(span.attributes),
            "events": [{"name": event.name, "attributes": fields(event.attributes)} for event in span.events],
            "resource": fields(resource.attributes),
            "authorization": self.headers.get("authorization"),
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Collector)
    print(json.dumps({"port": server.server_port}), flush=True)
    server.serve_forever()
