//! What a column holds, and how the text of a cell becomes a [`Cell`]: exact, or refused.

use freshet_core::connector::{Cell, Kind, Row};
use serde::Deserialize;

use super::text::{compact, is_json, mend_variant};

/// One column of a result, as `rowType` describes it. Names may repeat; what does not apply is null or absent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RowType {
    /// The column's name.
    pub name: String,
    /// `fixed`, `text`, `timestamp_ntz` …, in either case.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Digits after the point, of numbers; digits of the fraction, of times.
    #[serde(default)]
    pub scale: Option<i64>,
    /// Digits, of numbers.
    #[serde(default)]
    pub precision: Option<i64>,
    /// Whether it may be NULL; true where Snowflake does not say.
    #[serde(default = "yes")]
    pub nullable: bool,
}

impl RowType {
    /// The type in Snowflake's own words, `number(38,2)`; a text's length is left out, for it changes nothing.
    #[must_use]
    pub fn source_type(&self) -> String {
        let name = self.type_name.to_ascii_lowercase();
        match name.as_str() {
            "fixed" => format!("number({},{})", self.precision.unwrap_or(38), self.scale.unwrap_or(0)),
            "real" => "float".into(),
            _ => name,
        }
    }
}

fn yes() -> bool {
    true
}

/// The most digits that always fit into 64 bits.
const INT_DIGITS_MAX: i64 = 18;

/// How the text of a column's cells is read: the form without any output format set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellType {
    /// NUMBER without digits after the point, of at most 18 digits.
    Int,
    /// NUMBER of any other size.
    Decimal,
    /// DECFLOAT.
    DecFloat,
    /// FLOAT.
    Float,
    /// VARCHAR and its synonyms.
    Text,
    /// BOOLEAN.
    Bool,
    /// BINARY, in hex.
    Binary,
    /// DATE, in days since 1970-01-01.
    Date,
    /// TIME, in seconds since midnight.
    Time,
    /// TIMESTAMP_NTZ: a wall clock as if in UTC.
    TimestampNtz,
    /// TIMESTAMP_LTZ: an instant.
    TimestampLtz,
    /// TIMESTAMP_TZ: an instant and the minutes of its zone, plus 1 440.
    TimestampTz,
    /// VARIANT, OBJECT, ARRAY, MAP, VECTOR, and geography as GeoJSON.
    Json,
}

impl CellType {
    /// The form of a column; none for a type that is not known to be sent exactly.
    #[must_use]
    pub fn of(column: &RowType) -> Option<Self> {
        Some(match column.type_name.to_ascii_lowercase().as_str() {
            "fixed" if column.scale.unwrap_or(0) == 0 && column.precision.unwrap_or(38) <= INT_DIGITS_MAX => Self::Int,
            "fixed" => Self::Decimal,
            "decfloat" => Self::DecFloat,
            "real" => Self::Float,
            "text" => Self::Text,
            "boolean" => Self::Bool,
            "binary" => Self::Binary,
            "date" => Self::Date,
            "time" => Self::Time,
            "timestamp_ntz" => Self::TimestampNtz,
            "timestamp_ltz" => Self::TimestampLtz,
            "timestamp_tz" => Self::TimestampTz,
            "variant" | "object" | "array" | "map" | "vector" | "geography" | "geometry" => Self::Json,
            _ => return None,
        })
    }

    /// What the column holds, in the words every source shares.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Int => Kind::Int,
            Self::Decimal | Self::DecFloat => Kind::Decimal,
            Self::Float => Kind::Float,
            Self::Text => Kind::Text,
            Self::Bool => Kind::Bool,
            Self::Binary => Kind::Bytes,
            Self::Date => Kind::Date,
            Self::Time => Kind::Time,
            Self::TimestampNtz => Kind::Timestamp,
            Self::TimestampLtz | Self::TimestampTz => Kind::TimestampTz,
            Self::Json => Kind::Json,
        }
    }

    /// Adds one cell to a row; on an error, which says what was expected, the row is of no use.
    pub(super) fn push(self, raw: &[u8], row: &mut Row) -> Result<(), &'static str> {
        match self {
            Self::Int => row.push(Cell::Int(int(raw).ok_or("a whole number of 64 bits")?)),
            Self::Decimal if is_decimal(raw) => row.push_bytes(Cell::Number, raw),
            Self::Decimal => return Err("a decimal number"),
            Self::DecFloat => dec_float(raw, row).ok_or("a decimal number")?,
            Self::Float => float(raw, row).ok_or("a floating-point number")?,
            Self::Text => row.push_bytes(Cell::Text, utf8(raw)?),
            Self::Bool => row.push(Cell::Bool(boolean(raw).ok_or("true or false")?)),
            Self::Binary => row.push_with(Cell::Bytes, |out| hex(raw, out)).ok_or("pairs of hex digits")?,
            Self::Date => {
                let days = int(raw).and_then(|days| i32::try_from(days).ok());
                row.push(Cell::Date(days.ok_or("days since 1970")?));
            }
            Self::Time => {
                let (seconds, nanos) = seconds(raw).ok_or("seconds since midnight")?;
                let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds < 86_400);
                row.push(Cell::Time(seconds.ok_or("seconds since midnight")? * 1_000_000_000 + u64::from(nanos)));
            }
            Self::TimestampNtz => {
                let (seconds, nanos) = seconds(raw).ok_or("seconds since 1970")?;
                row.push(Cell::Timestamp(seconds, nanos));
            }
            Self::TimestampLtz => {
                let (seconds, nanos) = seconds(raw).ok_or("seconds since 1970")?;
                row.push(Cell::TimestampTz(seconds, nanos, 0));
            }
            Self::TimestampTz => {
                let (seconds, nanos, offset) = zoned(raw).ok_or("seconds since 1970 and an offset")?;
                row.push(Cell::TimestampTz(seconds, nanos, offset));
            }
            Self::Json => json(raw, row)?,
        }
        Ok(())
    }
}

fn utf8(raw: &[u8]) -> Result<&[u8], &'static str> {
    std::str::from_utf8(raw).map(str::as_bytes).map_err(|_| "UTF-8")
}

fn int(raw: &[u8]) -> Option<i64> {
    let (negative, digits) = match raw {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    // 18 digits always fit; a 19th has to be checked.
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let value = digits.iter().try_fold(0u64, |value, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then(|| value * 10 + u64::from(digit))
    })?;
    if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

/// `-?(0|[1-9][0-9]*)(\.[0-9]+)?`: what is a JSON number too.
fn is_decimal(raw: &[u8]) -> bool {
    let unsigned = raw.strip_prefix(b"-").unwrap_or(raw);
    let whole = unsigned.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let leading = whole > 1 && unsigned[0] == b'0';
    let fraction = match unsigned.get(whole) {
        None => true,
        Some(b'.') => whole + 1 < unsigned.len() && unsigned[whole + 1..].iter().all(u8::is_ascii_digit),
        Some(_) => false,
    };
    whole > 0 && !leading && fraction
}

fn not_finite(raw: &[u8]) -> Option<&'static [u8]> {
    match raw.to_ascii_lowercase().as_slice() {
        b"nan" => Some(b"NaN"),
        b"inf" | b"infinity" => Some(b"Infinity"),
        b"-inf" | b"-infinity" => Some(b"-Infinity"),
        _ => None,
    }
}

fn float(raw: &[u8], row: &mut Row) -> Option<()> {
    if raw.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E')) {
        let value: f64 = std::str::from_utf8(raw).ok()?.parse().ok()?;
        // A text past the largest float is no value of the column.
        row.push(Cell::Float(Some(value).filter(|value| value.is_finite())?));
    } else {
        row.push_bytes(Cell::Text, not_finite(raw)?);
    }
    Some(())
}

/// The largest exponent of a DECFLOAT is 16 384; a little more is let through, so that nothing valid is refused.
const EXPONENT_MAX: i32 = 20_000;

/// A DECFLOAT in plain digits: its exponent is written out.
fn dec_float(raw: &[u8], row: &mut Row) -> Option<()> {
    if let Some(word) = not_finite(raw) {
        row.push_bytes(Cell::Text, word);
        return Some(());
    }
    let Some(mark) = raw.iter().position(|byte| matches!(byte, b'e' | b'E')) else {
        return is_decimal(raw).then(|| row.push_bytes(Cell::Number, raw));
    };
    let (mantissa, exponent) = (&raw[..mark], std::str::from_utf8(&raw[mark + 1..]).ok()?);
    let exponent: i32 = exponent.parse().ok()?;
    if !is_decimal(mantissa) || exponent.abs() > EXPONENT_MAX {
        return None;
    }
    row.push_with(Cell::Number, |out| plain_digits(mantissa, exponent, out));
    Some(())
}

fn plain_digits(mantissa: &[u8], exponent: i32, out: &mut Vec<u8>) {
    let (sign, unsigned) = mantissa.split_at(usize::from(mantissa.starts_with(b"-")));
    let point = unsigned.iter().position(|byte| *byte == b'.').unwrap_or(unsigned.len());
    let digits: Vec<u8> = unsigned.iter().copied().filter(u8::is_ascii_digit).collect();
    // How many of the digits stand before the point, once it is moved.
    let before = point as i64 + i64::from(exponent);
    out.extend_from_slice(sign);
    let zeros = |count: i64| std::iter::repeat_n(b'0', usize::try_from(count).unwrap_or(0));
    if before <= 0 {
        out.extend_from_slice(b"0.");
        out.extend(zeros(-before));
        out.extend_from_slice(&digits);
        return;
    }
    let split = usize::try_from(before).unwrap_or(usize::MAX).min(digits.len());
    let whole: Vec<u8> = digits[..split].iter().copied().chain(zeros(before - split as i64)).collect();
    let leading = whole.iter().take_while(|digit| **digit == b'0').count().min(whole.len() - 1);
    out.extend_from_slice(&whole[leading..]);
    if split < digits.len() {
        out.push(b'.');
        out.extend_from_slice(&digits[split..]);
    }
}

fn boolean(raw: &[u8]) -> Option<bool> {
    match raw {
        b"true" | b"1" | b"TRUE" => Some(true),
        b"false" | b"0" | b"FALSE" => Some(false),
        _ => None,
    }
}

fn hex(raw: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (pairs, []) = raw.as_chunks::<2>() else { return None };
    for pair in pairs {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        out.push((high? << 4 | low?) as u8);
    }
    Some(())
}

/// Years up to some 300 000 either way: more than Snowflake has, and far from where arithmetic ends.
const SECONDS_MAX: i64 = 10_000_000_000_000;

/// Decimal seconds as whole seconds, rounded down, and the nanoseconds above them.
fn seconds(raw: &[u8]) -> Option<(i64, u32)> {
    let (whole, fraction) = match raw.iter().position(|byte| *byte == b'.') {
        Some(point) => (&raw[..point], &raw[point + 1..]),
        None => (raw, &raw[..0]),
    };
    if fraction.len() > 9 || (fraction.is_empty() && whole.len() != raw.len()) {
        return None;
    }
    let negative = whole.starts_with(b"-");
    let whole = int(whole).filter(|seconds| seconds.abs() < SECONDS_MAX)?;
    let mut nanos = 0;
    for place in 0..9 {
        let digit = fraction.get(place).map_or(0, |byte| byte.wrapping_sub(b'0'));
        nanos = nanos * 10 + u32::from(Some(digit).filter(|digit| *digit < 10)?);
    }
    // -0.5 is half a second before 1970: the second before it, and half a second above that.
    if negative && nanos > 0 { Some((whole - 1, 1_000_000_000 - nanos)) } else { Some((whole, nanos)) }
}

fn zoned(raw: &[u8]) -> Option<(i64, u32, i16)> {
    let space = raw.iter().position(|byte| *byte == b' ')?;
    let (seconds, nanos) = seconds(&raw[..space])?;
    // The documents say 720 to 2160; +13:00 and +14:00 exist.
    let offset = int(&raw[space + 1..]).filter(|offset| (0..=2_880).contains(offset))?;
    Some((seconds, nanos, (offset - 1_440) as i16))
}

fn json(raw: &[u8], row: &mut Row) -> Result<(), &'static str> {
    let raw = utf8(raw)?;
    if is_json(raw) {
        row.push_with(Cell::Json, |out| compact(raw, out));
        return Ok(());
    }
    let mut mended = Vec::with_capacity(raw.len());
    mend_variant(raw, &mut mended);
    if !is_json(&mended) {
        return Err("a JSON document");
    }
    row.push_with(Cell::Json, |out| compact(&mended, out));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::json as format;

    fn of(type_name: &str, precision: Option<i64>, scale: Option<i64>) -> CellType {
        let column = RowType { name: "A".into(), type_name: type_name.into(), scale, precision, nullable: true };
        CellType::of(&column).unwrap()
    }

    /// The cell as JSON, or what was expected instead.
    fn read(cell: CellType, text: &str) -> Result<String, &'static str> {
        let (mut row, mut out) = (Row::default(), Vec::new());
        cell.push(text.as_bytes(), &mut row)?;
        format::cell(&row, 0, &mut out);
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_type_is_read_exactly() {
        let number = |scale| of("fixed", Some(38), Some(scale));
        let cases = [
            (of("FIXED", Some(18), Some(0)), "-999999999999999999", "-999999999999999999"),
            (number(0), "99999999999999999999999999999999999999", "99999999999999999999999999999999999999"),
            (number(2), "1.50", "1.50"),
            (number(37), "-0.0000000000000000000000000000000000001", "-0.0000000000000000000000000000000000001"),
            (of("real", None, None), "0.1", "0.1"),
            (of("real", None, None), "1e+300", "1e300"),
            (of("real", None, None), "NaN", "\"NaN\""),
            (of("real", None, None), "-inf", "\"-Infinity\""),
            (
                of("decfloat", None, None),
                "12345678901234567890123456789012345678",
                "12345678901234567890123456789012345678",
            ),
            (of("decfloat", None, None), "1.25e+4", "12500"),
            (of("decfloat", None, None), "-1.25E-3", "-0.00125"),
            (of("decfloat", None, None), "1.2345e2", "123.45"),
            (of("decfloat", None, None), "0.5e1", "5"),
            (of("text", None, None), "it's \"so\"", "\"it's \\\"so\\\"\""),
            (of("boolean", None, None), "true", "true"),
            (of("boolean", None, None), "0", "false"),
            (of("binary", None, None), "00FFab", "\"AP+r\""),
            (of("date", None, None), "17982", "\"2019-03-27\""),
            (of("date", None, None), "-1", "\"1969-12-31\""),
            (of("time", None, Some(9)), "82919.000000000", "\"23:01:59\""),
            (of("time", None, Some(9)), "0.000000001", "\"00:00:00.000000001\""),
            (of("timestamp_ntz", None, Some(9)), "1611871777.123456789", "\"2021-01-28T22:09:37.123456789\""),
            (of("timestamp_ntz", None, Some(9)), "-0.500000000", "\"1969-12-31T23:59:59.500\""),
            (of("timestamp_ntz", None, Some(0)), "-1", "\"1969-12-31T23:59:59\""),
            (of("timestamp_ltz", None, Some(9)), "-86400.000000001", "\"1969-12-30T23:59:59.999999999Z\""),
            (of("timestamp_tz", None, Some(9)), "1616173619.000000000 1500", "\"2021-03-19T18:06:59+01:00\""),
            (of("timestamp_tz", None, Some(9)), "0.000000000 2280", "\"1970-01-01T14:00:00+14:00\""),
            (of("timestamp_tz", None, Some(9)), "0 1110", "\"1969-12-31T18:30:00-05:30\""),
            (of("variant", None, None), "{\"n\": 1e999}", "{\"n\":1e999}"),
            (of("variant", None, None), "123456789012345678901234567890.5", "123456789012345678901234567890.5"),
            (of("array", None, None), "[\n  1,\n  undefined\n]", "[1,null]"),
            (of("object", None, None), "{}", "{}"),
        ];
        for (cell, text, expected) in cases {
            assert_eq!(read(cell, text).as_deref(), Ok(expected), "{cell:?} {text}");
        }
    }

    #[test]
    fn a_text_that_is_not_of_the_type_is_refused() {
        let cases: [(CellType, &[&str]); 11] = [
            (CellType::Int, &["", "-", "1.0", "9223372036854775808", "+1", "1e3", " 1"]),
            (CellType::Decimal, &["", "-", ".5", "5.", "01", "1e3", "NaN", "1 "]),
            (CellType::DecFloat, &["", "e1", "1e", "1e99999", "x"]),
            (CellType::Float, &["", "1e999", "0x10", "1,5", "nanx", "e"]),
            (CellType::Bool, &["", "True", "yes", "2"]),
            (CellType::Binary, &["0", "0G", "é"]),
            (CellType::Date, &["", "2019-03-27", "99999999999"]),
            (CellType::Time, &["-1.0", "86400", "1.", "1.0000000001", "12:00:00"]),
            (CellType::TimestampNtz, &["", "99999999999999", "1.5x", "1..5", "2021-01-28"]),
            (CellType::TimestampTz, &["1616173619.0", "0 2881", "0 -1", "0  1440"]),
            (CellType::Json, &["", "{", "nul", "[1,]", "undefine"]),
        ];
        for (cell, texts) in cases {
            for text in texts {
                assert!(read(cell, text).is_err(), "{cell:?} {text}");
            }
        }
        assert_eq!(CellType::Text.push(&[0xFF], &mut Row::default()), Err("UTF-8"));
    }

    #[test]
    fn a_type_nobody_knows_is_refused_by_name() {
        let unknown = RowType {
            name: "A".into(),
            type_name: "interval_day_time".into(),
            scale: None,
            precision: None,
            nullable: true,
        };

        assert_eq!(CellType::of(&unknown), None);
    }
}
