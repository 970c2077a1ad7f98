//! Which types are sent, and how their binary form becomes a cell.
//!
//! Exact or refused by name: numbers keep every digit, times every microsecond; a type whose text
//! depends on a locale (`money`), or that has no plain form (points, composites), is refused with the
//! advice to cast it. Binary forms are those of PostgreSQL's `*send` functions.

use std::io::Write as _;

use freshet_core::connector::{Cell, Kind, Row};
use sqlx::TypeInfo;
use sqlx::postgres::{PgTypeInfo, PgTypeKind};

use crate::formats::json;

/// How a column's binary form is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PgType {
    /// `boolean`
    Bool,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `oid`
    Oid,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `numeric`
    Numeric,
    /// `text`, `varchar`, `char(n)`, `name`, `citext`, enums
    Text,
    /// `xml`, without a declaration that says no more than the defaults
    Xml,
    /// `"char"`, one byte
    Char,
    /// `bytea`
    Bytea,
    /// `uuid`
    Uuid,
    /// `json`
    Json,
    /// `jsonb`
    Jsonb,
    /// `date`
    Date,
    /// `time`
    Time,
    /// `timetz`
    TimeTz,
    /// `timestamp`
    Timestamp,
    /// `timestamptz`
    TimestampTz,
    /// `interval`
    Interval,
    /// `interval` of a server before release 17, which has no infinite ones
    FiniteInterval,
    /// `inet`, `cidr`
    Inet,
    /// `macaddr`, `macaddr8`
    MacAddr,
    /// `bit`, `varbit`
    Bit,
    /// `pg_lsn`
    Lsn,
    /// Arrays of any of these
    Array(Box<PgType>),
    /// Ranges over any of these
    Range(Box<PgType>),
}

/// Base types that are sent, by their names in `pg_type`; all but `citext` are built in.
pub(super) const SIMPLE: &[(&str, PgType)] = &[
    ("bool", PgType::Bool),
    ("int2", PgType::Int2),
    ("int4", PgType::Int4),
    ("int8", PgType::Int8),
    ("oid", PgType::Oid),
    ("float4", PgType::Float4),
    ("float8", PgType::Float8),
    ("numeric", PgType::Numeric),
    ("text", PgType::Text),
    ("varchar", PgType::Text),
    ("bpchar", PgType::Text),
    ("name", PgType::Text),
    ("citext", PgType::Text),
    ("xml", PgType::Xml),
    ("char", PgType::Char),
    ("bytea", PgType::Bytea),
    ("uuid", PgType::Uuid),
    ("json", PgType::Json),
    ("jsonb", PgType::Jsonb),
    ("date", PgType::Date),
    ("time", PgType::Time),
    ("timetz", PgType::TimeTz),
    ("timestamp", PgType::Timestamp),
    ("timestamptz", PgType::TimestampTz),
    ("interval", PgType::Interval),
    ("inet", PgType::Inet),
    ("cidr", PgType::Inet),
    ("macaddr", PgType::MacAddr),
    ("macaddr8", PgType::MacAddr),
    ("bit", PgType::Bit),
    ("varbit", PgType::Bit),
    ("pg_lsn", PgType::Lsn),
];

/// Bytes that are not of the type's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's bytes are not of the column's type")]
pub struct Malformed;

type Decoded<T = ()> = Result<T, Malformed>;

impl PgType {
    /// The type's form; none for a type that is refused.
    #[must_use]
    pub fn of(info: &PgTypeInfo) -> Option<Self> {
        match info.kind() {
            PgTypeKind::Array(element) => Self::of(element).filter(Self::fits_in_array).map(|t| Self::Array(t.into())),
            PgTypeKind::Range(element) => Self::of(element).map(|t| Self::Range(t.into())),
            PgTypeKind::Domain(base) => Self::of(base),
            PgTypeKind::Enum(_) => Some(Self::Text),
            PgTypeKind::Simple => Self::simple(info.name()),
            PgTypeKind::Composite(_) | PgTypeKind::Pseudo => None,
        }
    }

    /// The form on a server of this version, `150018`.
    #[must_use]
    pub fn at_version(self, version: u32) -> Self {
        match self {
            Self::Interval if version < 170_000 => Self::FiniteInterval,
            Self::Array(element) => Self::Array(element.at_version(version).into()),
            Self::Range(element) => Self::Range(element.at_version(version).into()),
            other => other,
        }
    }

    fn fits_in_array(&self) -> bool {
        !matches!(self, Self::Array(_))
    }

    /// By the driver's name: the catalogue's in capitals, but for two, and with a schema for what is not found without.
    fn simple(name: &str) -> Option<Self> {
        let name = match name {
            "CHAR" => "bpchar",
            "\"CHAR\"" => "char",
            name if name.ends_with(".citext") => "citext",
            name => name,
        };
        SIMPLE.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, simple)| simple.clone())
    }

    /// What the column holds, in the words every source shares.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Bool => Kind::Bool,
            Self::Int2 | Self::Int4 | Self::Int8 | Self::Oid => Kind::Int,
            Self::Float4 | Self::Float8 => Kind::Float,
            Self::Numeric => Kind::Decimal,
            Self::Text
            | Self::Xml
            | Self::Char
            | Self::Uuid
            | Self::TimeTz
            | Self::Inet
            | Self::MacAddr
            | Self::Bit
            | Self::Lsn
            | Self::Range(_) => Kind::Text,
            Self::Bytea => Kind::Bytes,
            Self::Json | Self::Jsonb | Self::Array(_) => Kind::Json,
            Self::Date => Kind::Date,
            Self::Time => Kind::Time,
            Self::Timestamp => Kind::Timestamp,
            Self::TimestampTz => Kind::TimestampTz,
            Self::Interval | Self::FiniteInterval => Kind::Interval,
        }
    }

    /// Whether rows can be ordered and resumed by such a column.
    #[must_use]
    pub fn is_key(&self) -> bool {
        !matches!(
            self,
            Self::Xml
                | Self::Json
                | Self::Jsonb
                | Self::Array(_)
                | Self::Range(_)
                | Self::Interval
                | Self::FiniteInterval
                | Self::Bit
        )
    }

    /// Adds one value to a row.
    ///
    /// # Errors
    /// [`Malformed`]; the row is then of no use.
    pub fn decode(&self, bytes: &[u8], row: &mut Row) -> Decoded {
        match self {
            Self::Bool => row.push(Cell::Bool(byte(bytes)? != 0)),
            Self::Int2 => row.push(Cell::Int(i16::from_be_bytes(exact(bytes)?).into())),
            Self::Int4 => row.push(Cell::Int(i32::from_be_bytes(exact(bytes)?).into())),
            Self::Int8 => row.push(Cell::Int(i64::from_be_bytes(exact(bytes)?))),
            Self::Oid => row.push(Cell::Int(u32::from_be_bytes(exact(bytes)?).into())),
            Self::Float4 => float4(f32::from_be_bytes(exact(bytes)?), row),
            Self::Float8 => float8(f64::from_be_bytes(exact(bytes)?), row),
            Self::Numeric => numeric_cell(bytes, row)?,
            Self::Text | Self::Xml => row.push_bytes(Cell::Text, utf8(bytes)?),
            Self::Bytea => row.push_bytes(Cell::Bytes, bytes),
            Self::Json => row.push_bytes(Cell::Json, utf8(bytes)?),
            Self::Jsonb => match bytes.split_first() {
                Some((1, json)) => row.push_bytes(Cell::Json, utf8(json)?),
                _ => return Err(Malformed),
            },
            Self::Date => date(i32::from_be_bytes(exact(bytes)?), row),
            Self::Time => row.push(Cell::Time(nanos_of_day(i64::from_be_bytes(exact(bytes)?))?)),
            Self::Timestamp => timestamp(i64::from_be_bytes(exact(bytes)?), row, Cell::Timestamp),
            Self::TimestampTz => {
                timestamp(i64::from_be_bytes(exact(bytes)?), row, |seconds, nanos| {
                    Cell::TimestampTz(seconds, nanos, 0)
                });
            }
            Self::Array(element) => row.push_with(Cell::Json, |out| array(element, bytes, out))?,
            Self::Char
            | Self::Uuid
            | Self::TimeTz
            | Self::Interval
            | Self::FiniteInterval
            | Self::Inet
            | Self::MacAddr
            | Self::Bit
            | Self::Lsn
            | Self::Range(_) => row.push_with(Cell::Text, |out| self.text(bytes, out))?,
        }
        Ok(())
    }

    /// Appends one value as the server's own text, but for times, which are ISO 8601.
    fn text(&self, bytes: &[u8], out: &mut Vec<u8>) -> Decoded {
        match self {
            Self::Char => char_text(byte(bytes)?, out),
            Self::Uuid => uuid(bytes, out),
            Self::TimeTz => time_tz(bytes, out),
            Self::Interval => match infinite(bytes) {
                Some(text) => write(out, format_args!("{text}")),
                None => interval(bytes, out),
            },
            Self::FiniteInterval => interval(bytes, out),
            Self::Inet => inet(bytes, out),
            Self::MacAddr => mac_addr(bytes, out),
            Self::Bit => bits(bytes, out),
            Self::Lsn => {
                let lsn = u64::from_be_bytes(exact(bytes)?);
                write(out, format_args!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff))
            }
            Self::Range(element) => range(element, bytes, out),
            Self::Numeric => numeric(bytes, out).map(|_| ()),
            _ => {
                let mut row = Row::default();
                self.decode(bytes, &mut row)?;
                json::cell_text(&row, 0, out);
                Ok(())
            }
        }
    }
}

fn exact<const N: usize>(bytes: &[u8]) -> Decoded<[u8; N]> {
    bytes.try_into().map_err(|_| Malformed)
}

fn byte(bytes: &[u8]) -> Decoded<u8> {
    Ok(exact::<1>(bytes)?[0])
}

fn utf8(bytes: &[u8]) -> Decoded<&[u8]> {
    std::str::from_utf8(bytes).map(str::as_bytes).map_err(|_| Malformed)
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) -> Decoded {
    out.write_fmt(text).map_err(|_| Malformed)
}

/// Takes the first `N` bytes off a slice.
fn take<const N: usize>(bytes: &mut &[u8]) -> Decoded<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk::<N>().ok_or(Malformed)?;
    *bytes = tail;
    Ok(*head)
}

fn float4(value: f32, row: &mut Row) {
    if value.is_finite() {
        row.push(Cell::Float32(value));
    } else {
        row.push_bytes(Cell::Text, not_finite(value.into()));
    }
}

fn float8(value: f64, row: &mut Row) {
    if value.is_finite() {
        row.push(Cell::Float(value));
    } else {
        row.push_bytes(Cell::Text, not_finite(value));
    }
}

fn not_finite(value: f64) -> &'static [u8] {
    if value.is_nan() {
        b"NaN"
    } else if value > 0.0 {
        b"Infinity"
    } else {
        b"-Infinity"
    }
}

fn numeric_cell(bytes: &[u8], row: &mut Row) -> Decoded {
    if matches!(bytes.get(4..6), Some([0xC0 | 0xD0 | 0xF0, 0])) {
        row.push_with(Cell::Text, |out| numeric(bytes, out)).map(|_| ())
    } else {
        row.push_with(Cell::Number, |out| numeric(bytes, out)).map(|_| ())
    }
}

/// Appends a `numeric` in plain digits; false for NaN and the infinities.
///
/// The form: count of base-10000 digits, weight of the first, sign, digits after the point, the digits.
fn numeric(mut bytes: &[u8], out: &mut Vec<u8>) -> Decoded<bool> {
    // Unsigned: the longest numbers have 36 864 such digits.
    let count = u16::from_be_bytes(take(&mut bytes)?);
    let weight = i16::from_be_bytes(take(&mut bytes)?);
    let sign = u16::from_be_bytes(take(&mut bytes)?);
    let scale = i16::from_be_bytes(take(&mut bytes)?);
    match sign {
        0xC000 => out.extend_from_slice(b"NaN"),
        0xD000 => out.extend_from_slice(b"Infinity"),
        0xF000 => out.extend_from_slice(b"-Infinity"),
        0x0000 | 0x4000 => {
            let (digits, rest) = bytes.as_chunks::<2>();
            if digits.len() != usize::from(count) || !rest.is_empty() || scale < 0 {
                return Err(Malformed);
            }
            if sign == 0x4000 {
                out.push(b'-');
            }
            return numeric_digits(digits, weight.into(), scale.into(), out).map(|()| true);
        }
        _ => return Err(Malformed),
    }
    Ok(false)
}

fn numeric_digits(digits: &[[u8; 2]], weight: i32, scale: i32, out: &mut Vec<u8>) -> Decoded {
    let digit = |place: i32| -> Decoded<u16> {
        let value =
            usize::try_from(place).ok().and_then(|place| digits.get(place)).map_or(0, |d| u16::from_be_bytes(*d));
        if value < 10_000 { Ok(value) } else { Err(Malformed) }
    };
    let quad =
        |value: u16| [value / 1000, value / 100 % 10, value / 10 % 10, value % 10].map(|digit| b'0' + digit as u8);
    if weight > 0 && digit(0)? == 0 {
        return Err(Malformed);
    }
    if weight < 0 {
        out.push(b'0');
    } else {
        out.extend_from_slice(itoa::Buffer::new().format(digit(0)?).as_bytes());
        for place in 1..=weight {
            out.extend_from_slice(&quad(digit(place)?));
        }
    }
    if scale > 0 {
        out.push(b'.');
        let mut left = scale as usize;
        let mut place = weight + 1;
        while left > 0 {
            let taken = left.min(4);
            out.extend_from_slice(&quad(digit(place)?)[..taken]);
            left -= taken;
            place += 1;
        }
    }
    Ok(())
}

/// Days from 1970-01-01 to 2000-01-01, PostgreSQL's first day.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_SECONDS: i64 = EPOCH_DAYS as i64 * 86_400;

fn date(days: i32, row: &mut Row) {
    match days {
        i32::MAX => row.push_bytes(Cell::Text, b"infinity"),
        i32::MIN => row.push_bytes(Cell::Text, b"-infinity"),
        // Not past 5874897-12-31, so there is room.
        days => row.push(Cell::Date(days.saturating_add(EPOCH_DAYS))),
    }
}

fn timestamp(micros: i64, row: &mut Row, cell: impl FnOnce(i64, u32) -> Cell) {
    match micros {
        i64::MAX => row.push_bytes(Cell::Text, b"infinity"),
        i64::MIN => row.push_bytes(Cell::Text, b"-infinity"),
        micros => {
            let nanos = micros.rem_euclid(1_000_000) as u32 * 1_000;
            row.push(cell(micros.div_euclid(1_000_000) + EPOCH_SECONDS, nanos));
        }
    }
}

fn nanos_of_day(micros: i64) -> Decoded<u64> {
    // 24:00:00 is a time in PostgreSQL.
    if (0..=86_400_000_000).contains(&micros) { Ok(micros as u64 * 1_000) } else { Err(Malformed) }
}

/// Nothing for a zero byte; past ASCII in octal, as the server writes it from release 16 on.
fn char_text(byte: u8, out: &mut Vec<u8>) -> Decoded {
    match byte {
        0 => {}
        1..=0x7F => out.push(byte),
        _ => write(out, format_args!("\\{byte:03o}"))?,
    }
    Ok(())
}

fn uuid(bytes: &[u8], out: &mut Vec<u8>) -> Decoded {
    let id = uuid::Uuid::from_bytes(exact(bytes)?);
    out.extend_from_slice(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
    Ok(())
}

fn time_tz(mut bytes: &[u8], out: &mut Vec<u8>) -> Decoded {
    let nanos = nanos_of_day(i64::from_be_bytes(take(&mut bytes)?))?;
    let west = i32::from_be_bytes(exact(bytes)?);
    json::time(nanos, out);
    let east = i64::from(west).saturating_neg();
    let (sign, offset) = if east < 0 { ('-', -east) } else { ('+', east) };
    write(out, format_args!("{sign}{:02}:{:02}", offset / 3600, offset / 60 % 60))?;
    if offset % 60 != 0 { write(out, format_args!(":{:02}", offset % 60)) } else { Ok(()) }
}

/// The infinities: greatest or least numbers alone.
fn infinite(mut bytes: &[u8]) -> Option<&'static str> {
    let micros = i64::from_be_bytes(take(&mut bytes).ok()?);
    let days = i32::from_be_bytes(take(&mut bytes).ok()?);
    match (micros, days, i32::from_be_bytes(exact(bytes).ok()?)) {
        (i64::MAX, i32::MAX, i32::MAX) => Some("infinity"),
        (i64::MIN, i32::MIN, i32::MIN) => Some("-infinity"),
        _ => None,
    }
}

/// ISO 8601 with a sign on each part, as the parts have signs of their own: `P1M-3DT4H`.
fn interval(mut bytes: &[u8], out: &mut Vec<u8>) -> Decoded {
    let micros = i64::from_be_bytes(take(&mut bytes)?);
    let days = i32::from_be_bytes(take(&mut bytes)?);
    let months = i32::from_be_bytes(exact(bytes)?);
    out.push(b'P');
    for (amount, letter) in [(months / 12, 'Y'), (months % 12, 'M'), (days, 'D')] {
        if amount != 0 {
            write(out, format_args!("{amount}{letter}"))?;
        }
    }
    if micros != 0 {
        out.push(b'T');
        for (amount, letter) in [(micros / 3_600_000_000, 'H'), (micros / 60_000_000 % 60, 'M')] {
            if amount != 0 {
                write(out, format_args!("{amount}{letter}"))?;
            }
        }
        let rest = micros % 60_000_000;
        if rest != 0 {
            let sign = if rest < 0 { "-" } else { "" };
            let rest = rest.unsigned_abs();
            write(out, format_args!("{sign}{}", rest / 1_000_000))?;
            let fraction = rest % 1_000_000;
            if fraction != 0 {
                let digits = format!("{fraction:06}");
                write(out, format_args!(".{}", digits.trim_end_matches('0')))?;
            }
            out.push(b'S');
        }
    }
    if out.ends_with(b"P") {
        out.extend_from_slice(b"T0S");
    }
    Ok(())
}

fn inet(mut bytes: &[u8], out: &mut Vec<u8>) -> Decoded {
    let [family, bits, is_cidr, length] = take(&mut bytes)?;
    let (address, full): (std::net::IpAddr, u8) = match (family, length) {
        (2, 4) => (std::net::IpAddr::from(exact::<4>(bytes)?), 32),
        (3, 16) => (std::net::IpAddr::from(exact::<16>(bytes)?), 128),
        _ => return Err(Malformed),
    };
    match ipv4_compatible(&address) {
        Some(inner) => write(out, format_args!("::{inner}"))?,
        None => write(out, format_args!("{address}"))?,
    }
    if is_cidr != 0 || bits != full { write(out, format_args!("/{bits}")) } else { Ok(()) }
}

/// The last four bytes of `::a.b.c.d`, which the server writes so and Rust does not.
fn ipv4_compatible(address: &std::net::IpAddr) -> Option<std::net::Ipv4Addr> {
    let std::net::IpAddr::V6(address) = address else { return None };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => address.to_ipv4(),
        _ => None,
    }
}

fn mac_addr(bytes: &[u8], out: &mut Vec<u8>) -> Decoded {
    if bytes.len() != 6 && bytes.len() != 8 {
        return Err(Malformed);
    }
    for (place, byte) in bytes.iter().enumerate() {
        if place > 0 {
            out.push(b':');
        }
        write(out, format_args!("{byte:02x}"))?;
    }
    Ok(())
}

fn bits(mut bytes: &[u8], out: &mut Vec<u8>) -> Decoded {
    let count = usize::try_from(i32::from_be_bytes(take(&mut bytes)?)).map_err(|_| Malformed)?;
    if bytes.len() != count.div_ceil(8) {
        return Err(Malformed);
    }
    out.extend((0..count).map(|place| b'0' + (bytes[place / 8] >> (7 - place % 8) & 1)));
    Ok(())
}

/// JSON, nested by dimension. Lower bounds are dropped: JSON has none.
fn array(element: &PgType, mut bytes: &[u8], out: &mut Vec<u8>) -> Decoded {
    let dimensions = i32::from_be_bytes(take(&mut bytes)?);
    take::<8>(&mut bytes)?; // Whether there are NULLs; the element's type.
    if !(0..=6).contains(&dimensions) {
        return Err(Malformed);
    }
    let mut lengths = Vec::with_capacity(dimensions as usize);
    for _ in 0..dimensions {
        lengths.push(usize::try_from(i32::from_be_bytes(take(&mut bytes)?)).map_err(|_| Malformed)?);
        take::<4>(&mut bytes)?; // The lower bound.
    }
    if lengths.is_empty() {
        out.extend_from_slice(b"[]");
        return if bytes.is_empty() { Ok(()) } else { Err(Malformed) };
    }
    // Each element has at least its length's four bytes, and the server makes no dimension of length 0.
    let elements = lengths.iter().try_fold(1_usize, |product, length| product.checked_mul(*length));
    if elements.is_none_or(|elements| elements == 0 || elements > bytes.len() / 4) {
        return Err(Malformed);
    }
    let mut row = Row::default();
    dimension(element, &lengths, &mut bytes, &mut row, out)?;
    if bytes.is_empty() { Ok(()) } else { Err(Malformed) }
}

fn dimension(element: &PgType, lengths: &[usize], bytes: &mut &[u8], row: &mut Row, out: &mut Vec<u8>) -> Decoded {
    let (length, deeper) = lengths.split_first().ok_or(Malformed)?;
    out.push(b'[');
    for place in 0..*length {
        if place > 0 {
            out.push(b',');
        }
        if deeper.is_empty() {
            match field(bytes)? {
                None => out.extend_from_slice(b"null"),
                Some(value) => {
                    row.clear();
                    element.decode(value, row)?;
                    json::cell(row, 0, out);
                }
            }
        } else {
            dimension(element, deeper, bytes, row, out)?;
        }
    }
    out.push(b']');
    Ok(())
}

/// A value with its length before it; none for NULL.
fn field<'a>(bytes: &mut &'a [u8]) -> Decoded<Option<&'a [u8]>> {
    let length = i32::from_be_bytes(take(bytes)?);
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    let (value, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
    *bytes = rest;
    Ok(Some(value))
}

/// PostgreSQL's own text of a range, with its bounds as we write such values: `[1,10)`, `empty`.
fn range(element: &PgType, mut bytes: &[u8], out: &mut Vec<u8>) -> Decoded {
    const EMPTY: u8 = 0x01;
    const LOWER_IN: u8 = 0x02;
    const UPPER_IN: u8 = 0x04;
    const LOWER_INFINITE: u8 = 0x08;
    const UPPER_INFINITE: u8 = 0x10;
    let [flags] = take(&mut bytes)?;
    if flags & EMPTY != 0 {
        out.extend_from_slice(b"empty");
        return Ok(());
    }
    out.push(if flags & LOWER_IN != 0 { b'[' } else { b'(' });
    if flags & LOWER_INFINITE == 0 {
        range_bound(element, field(&mut bytes)?.ok_or(Malformed)?, out)?;
    }
    out.push(b',');
    if flags & UPPER_INFINITE == 0 {
        range_bound(element, field(&mut bytes)?.ok_or(Malformed)?, out)?;
    }
    out.push(if flags & UPPER_IN != 0 { b']' } else { b')' });
    if bytes.is_empty() { Ok(()) } else { Err(Malformed) }
}

/// In quotes where the server puts them: an empty text, or one with a character that ranges are written with.
fn range_bound(element: &PgType, bytes: &[u8], out: &mut Vec<u8>) -> Decoded {
    let mut bound = Vec::new();
    element.text(bytes, &mut bound)?;
    let is_plain = |byte: &u8| !byte.is_ascii_whitespace() && *byte != 0x0B && !b"\"\\()[],".contains(byte);
    if !bound.is_empty() && bound.iter().all(is_plain) {
        out.extend_from_slice(&bound);
        return Ok(());
    }
    out.push(b'"');
    for byte in bound {
        if byte == b'"' || byte == b'\\' {
            out.push(byte);
        }
        out.push(byte);
    }
    out.push(b'"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn every_type() -> impl Strategy<Value = PgType> {
        let base = proptest::sample::select(SIMPLE).prop_map(|(_, simple)| simple);
        base.prop_recursive(2, 4, 1, |inner| {
            prop_oneof![
                inner.clone().prop_map(|element| PgType::Array(element.into())),
                inner.prop_map(|element| PgType::Range(element.into())),
            ]
        })
    }

    /// Random bytes, and such as begin like a value: small numbers, lengths, flags.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            (0..8_u32).prop_map(|word| word.to_be_bytes().to_vec()),
            Just(vec![0xFF; 4]),
            vec(any::<u8>(), 1..9),
        ];
        prop_oneof![
            vec(any::<u8>(), 0..64),
            vec(word, 0..24).prop_map(|words| words.concat()),
            // The lengths of whole numbers, times, intervals, addresses.
            proptest::sample::select(vec![1_usize, 2, 4, 8, 12, 16, 20])
                .prop_flat_map(|length| vec(any::<u8>(), length)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn bytes_that_are_no_value_are_refused_and_never_a_panic(pg_type in every_type(), bytes in bytes()) {
            let (mut row, mut out) = (Row::default(), Vec::new());

            let decoded = pg_type.decode(&bytes, &mut row);

            if decoded.is_ok() {
                prop_assert_eq!(row.cells().len(), 1);
                json::cell(&row, 0, &mut out);
                json::cell_text(&row, 0, &mut out);
                prop_assert!(std::str::from_utf8(&out).is_ok());
            }
        }

        #[test]
        fn numerics_of_any_form_are_refused_or_digits(
            count in 0..6_u16, weight in -5..6_i16, sign in proptest::sample::select(vec![0, 0x4000, 0xC000, 1_u16]),
            scale in -1..40_i16, digits in vec(0..10_001_u16, 0..6),
        ) {
            let words = [count, weight as u16, sign, scale as u16].into_iter().chain(digits);
            let bytes: Vec<_> = words.flat_map(u16::to_be_bytes).collect();
            let mut row = Row::default();

            if PgType::Numeric.decode(&bytes, &mut row).is_ok() {
                let mut out = Vec::new();
                json::cell(&row, 0, &mut out);
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok(), "{}", String::from_utf8_lossy(&out));
            }
        }
    }

    #[test]
    fn an_array_that_claims_more_than_its_bytes_is_refused() {
        let mut header: Vec<u8> = [6_u32, 0, 23].iter().flat_map(|word| word.to_be_bytes()).collect();
        for length in [100_u32, 100, 100, 100, 100, 0] {
            header.extend([length.to_be_bytes(), 1_u32.to_be_bytes()].concat());
        }
        header.extend([0; 400]);

        let decoded = PgType::Array(PgType::Int4.into()).decode(&header, &mut Row::default());

        assert_eq!(decoded, Err(Malformed));
    }
}
