//! How fast one core turns a partition of Snowflake's into JSON messages: inflate, decode, encode.
//!
//! `cargo run --release -p freshet-worker --example snowflake_transform` prints rows a second for 50 000 rows of 15
//! columns, the median of nine rounds, for each step alone and for all of them. Time is the thread's on a core, so a
//! busy machine does not count.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use freshet_core::connector::{
    Change, ChangeMeta, Column, EncodePlan, Encoder, Envelope, FormatKind, KeyForm, NumberForm, Op, Row, Schema,
};
use freshet_worker::formats::json;
use freshet_worker::sources::snowflake::decode::{CellType, Event, Inflater, RowType, Scanner};

const ROWS: usize = 50_000;
const ROUNDS: usize = 9;
/// A piece as it comes from the network.
const PIECE: usize = 16 * 1024;

type Failure = Box<dyn std::error::Error>;

fn columns() -> Vec<RowType> {
    let column = |name: &str, type_name: &str, precision, scale| RowType {
        name: name.into(),
        type_name: type_name.into(),
        precision,
        scale,
        nullable: true,
    };
    vec![
        column("ID", "fixed", Some(38), Some(0)),
        column("CUSTOMER_ID", "fixed", Some(18), Some(0)),
        column("STATUS", "text", None, None),
        column("AMOUNT", "fixed", Some(12), Some(2)),
        column("CURRENCY", "text", None, None),
        column("CREATED_AT", "timestamp_tz", None, Some(9)),
        column("UPDATED_AT", "timestamp_ntz", None, Some(9)),
        column("SHIP_DATE", "date", None, None),
        column("NOTE", "text", None, None),
        column("GIFT", "boolean", None, None),
        column("TAGS", "variant", None, None),
        column("WEIGHT", "real", None, None),
        column("METADATA$ACTION", "text", None, None),
        column("METADATA$ISUPDATE", "boolean", None, None),
        column("METADATA$ROW_ID", "text", None, None),
    ]
}

/// A partition as Snowflake sends it, without white space.
fn partition() -> Vec<u8> {
    let row = |n: usize| {
        let note = if n.is_multiple_of(7) { "null".into() } else { format!(r#""order \"{n}\" of the day""#) };
        format!(
            r#"["{n}","{}","{}","{}.{:02}","EUR","{}.{:09} 1500","{}.000000000","{}",{note},"{}","{{\"k\":{n},\"a\":[1,2]}}","{}","INSERT","false","{:040x}"]"#,
            n * 7919 % 100_000,
            ["new", "paid", "shipped"][n % 3],
            n % 10_000,
            n % 100,
            1_700_000_000 + n,
            n * 1_000_003 % 1_000_000_000,
            1_700_000_500 + n,
            19_000 + n % 900,
            n.is_multiple_of(2),
            (n % 1000) as f64 / 8.0,
            n * 2_654_435_761,
        )
    };
    let rows: Vec<_> = (1..=ROWS).map(row).collect();
    format!(r#"{{"data":[{}]}}"#, rows.join(",")).into_bytes()
}

fn encoder(columns: &[RowType], envelope: Envelope) -> Result<Box<dyn Encoder>, Failure> {
    let column = |column: &RowType| {
        let kind = CellType::of(column).ok_or("an unknown type")?.kind();
        Ok::<_, Failure>(Column { name: column.name.clone(), kind, source_type: column.source_type(), nullable: true })
    };
    let schema = Schema { columns: columns.iter().map(column).collect::<Result<_, _>>()? };
    Ok(json::Kind.encoder(EncodePlan {
        schema,
        key: vec![0],
        envelope,
        key_form: KeyForm::Object,
        numbers: NumberForm::Number,
        source: r#"{"connector":"freshet","name":"orders"}"#.into(),
    })?)
}

/// Reads a body, and writes its rows as messages if there is an encoder. Returns rows and bytes written.
fn transform(body: &[u8], gzip: bool, mut encoder: Option<&mut Box<dyn Encoder>>) -> Result<(usize, usize), Failure> {
    let types =
        columns().iter().map(|column| CellType::of(column).ok_or("an unknown type")).collect::<Result<_, _>>()?;
    let (mut inflater, mut scanner) = (Inflater::new(gzip), Scanner::default());
    scanner.expect(types);
    let (mut row, mut out) = (Row::default(), Vec::with_capacity(1 << 20));
    let (mut rows, mut bytes) = (0, 0);
    let mut pieces = body.chunks(PIECE);
    loop {
        match scanner.next(&mut row)? {
            Event::More => {
                let mut take = |inflated: &[u8]| {
                    scanner.feed(inflated);
                    Ok::<_, std::io::Error>(())
                };
                match pieces.next() {
                    Some(piece) => inflater.feed(piece, &mut take)?,
                    None => {
                        inflater.finish(&mut take)?;
                        scanner.end();
                    }
                }
            }
            Event::Row => {
                rows += 1;
                if let Some(encoder) = &mut encoder {
                    let change = Change { op: Op::Read, before: None, after: Some(&row) };
                    let meta = ChangeMeta { ts_ms: 1_700_000_000_000, batch_seq: 1, ordinal: rows as i64 };
                    encoder.key(&row, &mut out).map_err(|error| error.reason)?;
                    encoder.value(&change, meta, &mut out).map_err(|error| error.reason)?;
                    if out.len() > 1 << 19 {
                        bytes += out.len();
                        out.clear();
                    }
                }
            }
            Event::Member(..) | Event::Data => {}
            Event::End => return Ok((rows, bytes + out.len())),
        }
    }
}

/// Seconds that this thread was on a core; Linux alone tells.
fn on_core_s() -> Result<f64, Failure> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos: f64 = told.split(' ').next().ok_or("no time")?.parse()?;
    Ok(nanos / 1e9)
}

/// The median of some rounds, in rows a second.
fn measure(name: &str, mut round: impl FnMut() -> Result<(usize, usize), Failure>) -> Result<(), Failure> {
    let mut seconds = Vec::new();
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let since = on_core_s()?;
        let (rows, written) = round()?;
        seconds.push(on_core_s()? - since);
        assert_eq!(rows, ROWS, "every row comes");
        bytes = written;
    }
    seconds.sort_by(f64::total_cmp);
    let rows_s = ROWS as f64 / seconds[ROUNDS / 2];
    println!("{name:42} {:6.2} M rows/s {:5} B/row out", rows_s / 1e6, bytes / ROWS);
    Ok(())
}

fn main() -> Result<(), Failure> {
    let plain = partition();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&plain)?;
    let gzip = gzip.finish()?;
    println!("{ROWS} rows, {} B/row, gzip ratio {:.1}", plain.len() / ROWS, plain.len() as f64 / gzip.len() as f64);
    let mut row = encoder(&columns(), Envelope::Row)?;
    let mut debezium = encoder(&columns(), Envelope::Debezium)?;
    measure("decode", || transform(&plain, false, None))?;
    measure("inflate + decode", || transform(&gzip, true, None))?;
    measure("inflate + decode + encode (row)", || transform(&gzip, true, Some(&mut row)))?;
    measure("inflate + decode + encode (debezium)", || transform(&gzip, true, Some(&mut debezium)))?;
    Ok(())
}
