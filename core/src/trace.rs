//! Traces: what a request and the attempts at the run that it asks for have in common, by W3C Trace Context.
//!
//! ~~~text
//! traceparent ─► request ─► run_trace ─► attempt ─► seal, encode, chunk { produce, commit }, release
//! ~~~
//!
//! Spans are `tracing`'s; `deploy/src/traces.rs` sends them on. They hold ids and counts: no name of a tenant, no SQL, no
//! row, no address.

use std::fmt;
use std::str::FromStr;

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Chunks of a lane that each get spans; of the later ones those whose number is a power of two: 80 at most.
const CHUNKS_TRACED: u64 = 16;

/// Where a trace goes on: `00-<trace>-<span>-<flags>`, the text of the header `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace: u128,
    span: u64,
    sampled: bool,
}

/// A text that is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not of the form 00-<32 hexadecimal digits>-<16>-<2>")]
pub struct NotATraceParent;

impl FromStr for TraceParent {
    type Err = NotATraceParent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = |part: &str, digits: usize| {
            let right = part.len() == digits && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            right.then(|| u128::from_str_radix(part, 16).ok()).flatten().ok_or(NotATraceParent)
        };
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or(NotATraceParent);
        let (version, trace, span, flags) = (hex(next()?, 2)?, hex(next()?, 32)?, hex(next()?, 16)?, hex(next()?, 2)?);
        // A later version may say more behind; this one does not, and 255 is none.
        let is_more = parts.next().is_some();
        if version == 0xff || (version == 0 && is_more) || trace == 0 || span == 0 {
            return Err(NotATraceParent);
        }
        Ok(Self { trace, span: span as u64, sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

impl TraceParent {
    /// Where the span goes on that this is called in; none while no traces are taken.
    #[must_use]
    pub fn current() -> Option<Self> {
        let context = Span::current().context();
        let span = context.span();
        let span = span.span_context();
        span.is_valid().then(|| Self {
            trace: u128::from_be_bytes(span.trace_id().to_bytes()),
            span: u64::from_be_bytes(span.span_id().to_bytes()),
            sampled: span.is_sampled(),
        })
    }

    /// The trace's id, as collectors show it.
    #[must_use]
    pub fn trace_id(self) -> String {
        format!("{:032x}", self.trace)
    }

    /// Whether somebody wants to see it.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.sampled
    }

    /// Makes a span, which nobody has entered yet, go on here. Without effect while no traces are taken.
    pub fn adopt(self, span: &Span) {
        let flags = if self.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let (trace, id) = (TraceId::from(self.trace), SpanId::from(self.span));
        let remote = SpanContext::new(trace, id, flags, true, TraceState::default());
        // It fails for a span that nobody records.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote));
    }
}

/// Whether a chunk gets spans, by its number in its lane, from 1: a run of a thousand chunks is to be read too.
#[must_use]
pub fn is_traced(chunk: u64) -> bool {
    chunk <= CHUNKS_TRACED || chunk.is_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_reads_back_and_another_text_is_none() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

        let read: TraceParent = text.parse().unwrap();

        assert_eq!((read.to_string().as_str(), read.is_sampled()), (text, true));
        assert_eq!(read.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-later".parse::<TraceParent>().is_ok());
        for wrong in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(wrong.parse::<TraceParent>(), Err(NotATraceParent), "{wrong}");
        }
    }

    #[test]
    fn a_lane_has_a_bounded_number_of_traced_chunks() {
        let traced = (1..=100_000).filter(|chunk| is_traced(*chunk)).count();

        assert_eq!(traced, 16 + 12);
    }
}
