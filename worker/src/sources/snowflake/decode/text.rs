//! JSON strings, and the JSON inside of VARIANT cells.

use serde::de::IgnoredAny;

/// The place of the first byte at or after `at` that ends a run of plain string bytes: a quote, a backslash or a
/// control character; none if the run goes on past the end.
pub(super) fn plain_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // Eight bytes at once: a byte's high bit is set where the byte is less than 0x20, a quote or a backslash.
    // A borrow can mark a byte above a true mark, never one below it, and the lowest mark is the one taken.
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*eight);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        let marks =
            (control | (quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash)) & HIGH;
        if marks != 0 {
            return Some(at + marks.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    (at..bytes.len()).find(|place| ends_plain(bytes[*place]))
}

fn ends_plain(byte: u8) -> bool {
    byte == b'"' || byte == b'\\' || byte < 0x20
}

/// Appends the text of a JSON string's inside; none if an escape in it is wrong.
pub(super) fn unescape(inside: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = inside;
    while let Some(place) = rest.iter().position(|byte| *byte == b'\\') {
        out.extend_from_slice(&rest[..place]);
        rest = &rest[place + 1..];
        let (letter, tail) = rest.split_first()?;
        rest = tail;
        let plain = match letter {
            b'"' | b'\\' | b'/' => *letter,
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let letter = unicode(&mut rest)?;
                out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return None,
        };
        out.push(plain);
    }
    out.extend_from_slice(rest);
    Some(())
}

/// The character after `\u`; two escapes for one past the basic plane. Half a pair is no character.
fn unicode(rest: &mut &[u8]) -> Option<char> {
    let first = hex4(rest)?;
    if !(0xD800..0xDC00).contains(&first) {
        return char::from_u32(first);
    }
    *rest = rest.strip_prefix(b"\\u")?;
    let second = hex4(rest)?;
    if !(0xDC00..0xE000).contains(&second) {
        return None;
    }
    char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00))
}

fn hex4(rest: &mut &[u8]) -> Option<u32> {
    let (digits, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}

/// Whether the bytes are one JSON document. Numbers may have any size.
pub(super) fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// Appends a VARIANT's text with its words that JSON lacks in their nearest form: `undefined`, which is an SQL NULL
/// in an ARRAY, as null; NaN and the infinities as strings.
pub(super) fn mend_variant(text: &[u8], out: &mut Vec<u8>) {
    const WORDS: [(&[u8], &[u8]); 4] = [
        (b"undefined", b"null"),
        (b"NaN", b"\"NaN\""),
        (b"-Infinity", b"\"-Infinity\""),
        (b"Infinity", b"\"Infinity\""),
    ];
    let mut rest = text;
    while let Some(first) = rest.first() {
        let (taken, put) = if *first == b'"' {
            let length = string_length(rest);
            (length, &rest[..length])
        } else {
            WORDS
                .iter()
                .find(|(word, _)| rest.starts_with(word))
                .map_or((1, &rest[..1]), |(word, instead)| (word.len(), *instead))
        };
        out.extend_from_slice(put);
        rest = &rest[taken..];
    }
}

/// Appends a JSON document without the white space between its tokens: Snowflake may print it over several lines.
pub(super) fn compact(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(first) = rest.first() {
        match first {
            b'"' => {
                let length = string_length(rest);
                out.extend_from_slice(&rest[..length]);
                rest = &rest[length..];
                continue;
            }
            b' ' | b'\n' | b'\r' | b'\t' => {}
            other => out.push(*other),
        }
        rest = &rest[1..];
    }
}

/// How long the string at the start is, quotes included; the whole rest if it does not end.
fn string_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_run_ends_at_the_first_byte_that_is_not_plain() {
        for ending in [b'"', b'\\', 0, 0x1F, b'\n'] {
            for before in 0..20 {
                let mut bytes = vec![0xC3; before];
                bytes.push(ending);
                bytes.extend_from_slice(b"\"\x00  tail of it");
                assert_eq!(plain_end(&bytes, 0), Some(before), "{ending:#x} after {before}");
            }
        }
        assert_eq!(plain_end(b" !#[]~\x7f\x80\xff\x20 and more of it", 0), None);
    }

    #[test]
    fn a_document_over_several_lines_is_put_on_one() {
        let mut out = Vec::new();

        compact(b"{\n  \"a b\": [1, \"\\\" \\\\\" ,\tnull ]\r\n}", &mut out);

        assert_eq!(String::from_utf8(out).unwrap(), r#"{"a b":[1,"\" \\",null]}"#);
    }

    #[test]
    fn words_that_json_lacks_are_mended_outside_of_strings_alone() {
        let mut out = Vec::new();

        mend_variant(br#"[1, undefined, NaN, -Infinity, "undefined \" NaN", {"NaN": Infinity}]"#, &mut out);

        let mended = r#"[1, null, "NaN", "-Infinity", "undefined \" NaN", {"NaN": "Infinity"}]"#;
        assert_eq!(String::from_utf8(out).unwrap(), mended);
    }
}
