//! Logs: JSON for machines, text for people, to standard error; and spans for the collector of traces.

use std::io::{IsTerminal, Write};

use freshet_core::settings::{LogFormat, Settings};
use tracing::Subscriber;
use tracing::subscriber::set_global_default;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, registry};

use crate::traces::Traces;

/// Starts logging and tracing. Called once, by roles that work for long.
///
/// # Errors
/// When `FRESHET_LOG` does not parse, or a setting of traces is not of its form.
pub fn start(settings: &Settings) -> anyhow::Result<Traces> {
    let filter = EnvFilter::try_new(&settings.log)?;
    let traces = Traces::open(settings)?;
    // Not `init`, which has the crate `log` ask the filters too: one that is asked and hands over no line keeps its answer
    // for the next span, which is lost.
    match traces.layer() {
        Some(layer) => set_global_default(registry().with(layer).with(lines(settings).with_filter(filter))),
        None => set_global_default(registry().with(filter).with(lines(settings))),
    }?;
    Ok(traces)
}

/// The layer that writes lines.
fn lines<S>(settings: &Settings) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let is_terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(Harmless { colours: is_terminal });
    match settings.log_format {
        LogFormat::Json => lines.json().with_ansi(false).boxed(),
        LogFormat::Text => lines.compact().with_ansi(is_terminal).boxed(),
    }
}

/// Standard error, without what a text of somebody else's could do to who reads the log: begin a line that nobody wrote,
/// or move a terminal's cursor. Topics, columns and messages of servers may hold anything.
struct Harmless {
    /// Colours are let through: they harm nobody.
    colours: bool,
}

impl<'a> MakeWriter<'a> for Harmless {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { colours: self.colours }
    }
}

/// One line of the log, which comes in one piece.
struct Line {
    colours: bool,
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        std::io::stderr().lock().write_all(harmless(&text, self.colours).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// The line with every character that controls something written out, `\u001b`, as JSON has it; but for its own end.
fn harmless(line: &str, colours: bool) -> String {
    let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
    let mut safe = String::with_capacity(line.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let colour = if colours { colour_at(rest) } else { 0 };
        if colour > 0 {
            safe.push_str(&rest[..colour]);
            rest = &rest[colour..];
            continue;
        }
        match next {
            // Line and paragraph separators, and what turns the direction of writing.
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escape(&mut safe, next),
            _ if next.is_control() => escape(&mut safe, next),
            _ => safe.push(next),
        }
        rest = &rest[next.len_utf8()..];
    }
    safe.push_str(end);
    safe
}

fn escape(safe: &mut String, character: char) {
    safe.push_str(&format!("\\u{:04x}", u32::from(character)));
}

/// The length of the sequence that a text begins with, if it only sets a colour: `ESC [ 1 ; 31 m`.
fn colour_at(text: &str) -> usize {
    let Some(parameters) = text.strip_prefix("\u{1b}[") else { return 0 };
    let length = parameters.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b';').count();
    if length <= 16 && parameters[length..].starts_with('m') { length + 3 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn a_line_stays_one_line_and_controls_nothing() {
        let line = "ok topic=a\r\n2026-01-01 ERROR forged\u{1b}[2J\u{9b}1A\u{202e}\u{2028}\u{7}é 雪\n";

        let safe = harmless(line, false);

        assert_eq!(
            safe,
            "ok topic=a\\u000d\\u000a2026-01-01 ERROR forged\\u001b[2J\\u009b1A\\u202e\\u2028\\u0007é 雪\n"
        );
    }

    #[test]
    fn a_terminal_gets_colours_and_nothing_else() {
        let line = "\u{1b}[2m12:00\u{1b}[0m \u{1b}[1;31mx\u{1b}[0m \u{1b}[2J \u{1b}]0;title\u{7} \u{1b}[\n";

        let safe = harmless(line, true);

        assert_eq!(safe, "\u{1b}[2m12:00\u{1b}[0m \u{1b}[1;31mx\u{1b}[0m \\u001b[2J \\u001b]0;title\\u0007 \\u001b[\n");
    }
}
