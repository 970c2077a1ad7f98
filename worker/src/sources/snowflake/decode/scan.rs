//! The scanner: an answer's bytes, as they come, into rows and members.

use freshet_core::connector::{Cell, Row};

use super::Malformed;
use super::cell::CellType;
use super::text::{is_json, plain_end, unescape};

/// Bytes of one row or member, at most; a cell of Snowflake has 128 MiB at most.
const ITEM_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What the scanner came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The bytes do not reach to the next item: feed more, or end.
    More,
    /// A member of the answer besides its rows: name and value, a JSON document.
    Member(String, Vec<u8>),
    /// The rows begin: say what they hold with [`Scanner::expect`], or they are skipped.
    Data,
    /// The row handed in is filled.
    Row,
    /// The answer is whole, and nothing comes after it.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Members { first: bool },
    Rows { first: bool, bare: bool },
    Done,
}

/// Reads one answer of the form `[[…],…]` or `{…,"data":[[…],…],…}`.
///
/// Memory is one piece and the longest row; what is read is given back with the next piece.
#[derive(Debug)]
pub struct Scanner {
    buffer: Vec<u8>,
    /// Where the next item begins in the buffer.
    at: usize,
    /// Bytes of the answer before the buffer.
    passed: u64,
    /// An item that was cut short is tried again when so many bytes are there: twice as many as last time, so that
    /// a long row is not gone over again with each piece.
    wanted: usize,
    ended: bool,
    state: State,
    types: Option<Vec<CellType>>,
    scratch: Vec<u8>,
}

/// Why an item was not read.
enum Stop {
    More,
    Malformed(&'static str),
    /// The cell of this column is no value of its type.
    Cell(usize, &'static str),
}

type Read<T> = Result<T, Stop>;

impl Default for Scanner {
    fn default() -> Self {
        Self {
            buffer: Vec::new(),
            at: 0,
            passed: 0,
            wanted: 0,
            ended: false,
            state: State::Start,
            types: None,
            scratch: Vec::new(),
        }
    }
}

impl Scanner {
    /// Says what the rows hold, column by column.
    pub fn expect(&mut self, types: Vec<CellType>) {
        self.types = Some(types);
    }

    /// Whether [`Scanner::expect`] was called.
    #[must_use]
    pub fn expects_rows(&self) -> bool {
        self.types.is_some()
    }

    /// Adds the answer's next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.passed += self.at as u64;
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Says that no bytes will come any more.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The next item; `row` is filled on [`Event::Row`] and of no use otherwise.
    ///
    /// # Errors
    /// [`Malformed`] at the first byte that does not belong where it stands, and for an answer that was cut off.
    pub fn next(&mut self, row: &mut Row) -> Result<Event, Malformed> {
        let left = self.buffer.len() - self.at;
        if left < self.wanted && !self.ended {
            return Ok(Event::More);
        }
        match self.step(row) {
            Ok(event) => {
                self.wanted = 0;
                Ok(event)
            }
            Err(Stop::More) if self.ended => Err(self.malformed(self.buffer.len(), "more")),
            Err(Stop::More) if left > ITEM_BYTES_MAX => Err(self.malformed(self.at, "a row of at most 256 MiB")),
            Err(Stop::More) => {
                self.wanted = left * 2;
                Ok(Event::More)
            }
            Err(Stop::Malformed(expected)) => Err(self.malformed(self.at, expected)),
            Err(Stop::Cell(column, expected)) => {
                Err(Malformed { column: Some(column), ..self.malformed(self.at, expected) })
            }
        }
    }

    fn malformed(&self, at: usize, expected: &'static str) -> Malformed {
        Malformed { expected, at: self.passed + at as u64, column: None }
    }

    fn step(&mut self, row: &mut Row) -> Read<Event> {
        loop {
            match self.state {
                State::Start => self.start()?,
                State::Members { first } => {
                    if let Some(event) = self.member(first)? {
                        return Ok(event);
                    }
                }
                State::Rows { first, bare } => {
                    if self.row(first, bare, row)? {
                        return Ok(Event::Row);
                    }
                }
                State::Done => return self.rest(),
            }
            if self.state == (State::Rows { first: true, bare: true }) {
                return Ok(Event::Data);
            }
        }
    }

    fn start(&mut self) -> Read<()> {
        let mut cursor = Cursor { bytes: &self.buffer, at: self.at };
        self.state = match cursor.token()? {
            b'{' => State::Members { first: true },
            b'[' => State::Rows { first: true, bare: true },
            _ => return Err(Stop::Malformed("an object or an array")),
        };
        self.at = cursor.at;
        Ok(())
    }

    /// One member; none when the object ends with it.
    fn member(&mut self, first: bool) -> Read<Option<Event>> {
        let mut cursor = Cursor { bytes: &self.buffer, at: self.at };
        let mut next = cursor.token()?;
        if next == b'}' {
            (self.at, self.state) = (cursor.at, State::Done);
            return Ok(None);
        }
        if !first {
            if next != b',' {
                return Err(Stop::Malformed("a comma or the object's end"));
            }
            next = cursor.token()?;
        }
        if next != b'"' {
            return Err(Stop::Malformed("a member's name"));
        }
        let name = cursor.string()?;
        let name = text_of(&self.buffer[name.start..name.end])?;
        cursor.expect(b':', "a colon")?;
        if name == "data" && cursor.peek()? == b'[' {
            (self.at, self.state) = (cursor.at + 1, State::Rows { first: true, bare: false });
            return Ok(Some(Event::Data));
        }
        cursor.peek()?;
        let start = cursor.at;
        cursor.value()?;
        let value = &self.buffer[start..cursor.at];
        if !is_json(value) || std::str::from_utf8(value).is_err() {
            return Err(Stop::Malformed("a JSON document"));
        }
        let event = Event::Member(name, value.to_vec());
        (self.at, self.state) = (cursor.at, State::Members { first: false });
        Ok(Some(event))
    }

    /// One row, or one skipped (false), or the rows' end (false).
    fn row(&mut self, first: bool, bare: bool, row: &mut Row) -> Read<bool> {
        let mut cursor = Cursor { bytes: &self.buffer, at: self.at };
        let mut next = cursor.token()?;
        if next == b']' {
            self.state = if bare { State::Done } else { State::Members { first: false } };
            self.at = cursor.at;
            return Ok(false);
        }
        if !first {
            if next != b',' {
                return Err(Stop::Malformed("a comma or the rows' end"));
            }
            next = cursor.token()?;
        }
        if next != b'[' {
            return Err(Stop::Malformed("a row"));
        }
        let wanted = self.types.as_deref();
        match wanted {
            Some(types) => cursor.cells(types, row, &mut self.scratch)?,
            None => {
                cursor.at -= 1;
                cursor.value()?;
            }
        }
        let filled = wanted.is_some();
        (self.at, self.state) = (cursor.at, State::Rows { first: false, bare });
        Ok(filled)
    }

    fn rest(&mut self) -> Read<Event> {
        let mut cursor = Cursor { bytes: &self.buffer, at: self.at };
        match cursor.peek() {
            Ok(_) => Err(Stop::Malformed("the answer's end")),
            Err(_) if self.ended => Ok(Event::End),
            Err(stop) => Err(stop),
        }
    }
}

fn text_of(inside: &[u8]) -> Read<String> {
    let mut text = Vec::new();
    unescape(inside, &mut text).ok_or(Stop::Malformed("an escape of JSON"))?;
    String::from_utf8(text).map_err(|_| Stop::Malformed("UTF-8"))
}

/// The bounds of a string's inside, escapes and all.
struct Inside {
    start: usize,
    end: usize,
    escaped: bool,
}

/// A place in bytes that may end before the item does.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// The next byte that is no white space, which stays where it is.
    fn peek(&mut self) -> Read<u8> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(byte) => return Ok(*byte),
                None => return Err(Stop::More),
            }
        }
    }

    /// The next byte that is no white space.
    fn token(&mut self) -> Read<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    fn expect(&mut self, wanted: u8, expected: &'static str) -> Read<()> {
        if self.token()? == wanted { Ok(()) } else { Err(Stop::Malformed(expected)) }
    }

    /// The inside of a string whose opening quote is passed.
    fn string(&mut self) -> Read<Inside> {
        let (start, mut escaped) = (self.at, false);
        loop {
            let end = plain_end(self.bytes, self.at).ok_or(Stop::More)?;
            match self.bytes[end] {
                b'"' => {
                    self.at = end + 1;
                    return Ok(Inside { start, end, escaped });
                }
                b'\\' if end + 2 <= self.bytes.len() => (self.at, escaped) = (end + 2, true),
                b'\\' => return Err(Stop::More),
                _ => return Err(Stop::Malformed("no control character in a string")),
            }
        }
    }

    /// The cells of a row whose opening bracket is passed, and its closing one.
    fn cells(&mut self, types: &[CellType], row: &mut Row, scratch: &mut Vec<u8>) -> Read<()> {
        row.clear();
        for (place, cell) in types.iter().enumerate() {
            if place > 0 {
                self.expect(b',', "another cell")?;
            }
            match self.token()? {
                b'"' => self.cell(place, *cell, row, scratch)?,
                b'n' => self.null(row)?,
                _ => return Err(Stop::Malformed("a string or null")),
            }
        }
        self.expect(b']', "the row's end")
    }

    fn null(&mut self, row: &mut Row) -> Read<()> {
        let rest = &self.bytes[self.at..];
        if rest.starts_with(b"ull") {
            self.at += 3;
            row.push(Cell::Null);
            return Ok(());
        }
        let cut = rest.len() < 3 && b"ull".starts_with(rest);
        Err(if cut { Stop::More } else { Stop::Malformed("a string or null") })
    }

    fn cell(&mut self, place: usize, cell: CellType, row: &mut Row, scratch: &mut Vec<u8>) -> Read<()> {
        let inside = self.string()?;
        let raw = &self.bytes[inside.start..inside.end];
        if !inside.escaped {
            return cell.push(raw, row).map_err(|expected| Stop::Cell(place, expected));
        }
        scratch.clear();
        unescape(raw, scratch).ok_or(Stop::Malformed("an escape of JSON"))?;
        cell.push(scratch, row).map_err(|expected| Stop::Cell(place, expected))
    }

    /// Passes one value of any form; whether it is JSON is for the caller to ask.
    fn value(&mut self) -> Read<()> {
        let mut depth = 0usize;
        loop {
            match self.token()? {
                b'"' => {
                    self.string()?;
                }
                b'[' | b'{' => {
                    depth += 1;
                    continue;
                }
                b']' | b'}' => depth = depth.checked_sub(1).ok_or(Stop::Malformed("a value"))?,
                b',' | b':' if depth > 0 => continue,
                b',' | b':' => return Err(Stop::Malformed("a value")),
                _ => self.scalar()?,
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Passes a number or a word; what follows it shows where it ends.
    fn scalar(&mut self) -> Read<()> {
        let ends =
            |byte: &u8| matches!(byte, b',' | b':' | b']' | b'}' | b'"' | b'[' | b'{' | b' ' | b'\n' | b'\r' | b'\t');
        let length = self.bytes[self.at..].iter().position(ends).ok_or(Stop::More)?;
        self.at += length;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Table = Vec<Vec<Option<String>>>;

    /// Reads an answer in pieces that end at the places given; `columns` texts a row.
    fn scan(bytes: &[u8], columns: usize, cuts: &[usize]) -> Result<(Table, Vec<String>), Malformed> {
        let mut scanner = Scanner::default();
        scanner.expect(vec![CellType::Text; columns]);
        let (mut row, mut table, mut members) = (Row::default(), Table::new(), Vec::new());
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
        loop {
            match scanner.next(&mut row)? {
                Event::More => match pieces.next() {
                    Some(piece) => scanner.feed(piece),
                    None => scanner.end(),
                },
                Event::Member(name, _) => members.push(name),
                Event::Data => {}
                Event::Row => table.push(row.cells().iter().map(|cell| text(&row, *cell)).collect()),
                Event::End => return Ok((table, members)),
            }
        }
    }

    fn text(row: &Row, cell: Cell) -> Option<String> {
        match cell {
            Cell::Text(span) => Some(std::str::from_utf8(row.bytes(span)).unwrap().to_owned()),
            Cell::Null => None,
            _ => panic!("a text column holds {cell:?}"),
        }
    }

    fn table() -> impl Strategy<Value = (usize, Table)> {
        (1usize..5).prop_flat_map(|columns| {
            let cell = proptest::option::of(prop_oneof!["\\PC{0,20}", ".{0,9}", "[\\\\\"/\u{0}-\u{1f}]{0,9}"]);
            (Just(columns), prop::collection::vec(prop::collection::vec(cell, columns), 0..9))
        })
    }

    /// The table as JSON, with as many escapes and as much white space as `style` says.
    fn write(table: &Table, style: u8) -> Vec<u8> {
        let space = ["", " ", "\n\t", "\r "][usize::from(style % 4)];
        let cell = |cell: &Option<String>| match cell {
            None => "null".to_owned(),
            Some(text) if style & 4 == 0 => serde_json::to_string(text).unwrap(),
            Some(text) => {
                format!("\"{}\"", text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<String>())
            }
        };
        let row = |row: &Vec<Option<String>>| {
            format!("{space}[{}]{space}", row.iter().map(cell).collect::<Vec<_>>().join(&format!("{space},{space}")))
        };
        format!("{space}[{}]{space}", table.iter().map(row).collect::<Vec<_>>().join(",")).into_bytes()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn any_table_is_read_as_it_was_written((columns, table) in table(), style in any::<u8>(), cuts in prop::collection::vec(any::<usize>(), 0..12)) {
            let bytes = write(&table, style);

            prop_assert_eq!(scan(&bytes, columns, &cuts), Ok((table.clone(), vec![])));

            let object = [&br#"{"code":"1","meta":{"a":[1,"]}"]},"data":"#[..], &bytes, br#","message":"\u0041" }"#].concat();
            let members = vec!["code".to_owned(), "meta".to_owned(), "message".to_owned()];
            prop_assert_eq!(scan(&object, columns, &cuts), Ok((table, members)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(any::<usize>(), 0..6)) {
            let theirs: Option<Table> = serde_json::from_slice(&bytes).ok();

            prop_assert_eq!(scan(&bytes, 2, &cuts).is_ok(), theirs.is_some_and(|rows| rows.iter().all(|row| row.len() == 2)));
        }
    }

    #[test]
    fn a_cut_answer_is_refused_wherever_it_is_cut() {
        let whole = br#"{"data":[["a",null],["b\u0041","c"]],"code":"090001"}"#;

        for length in 0..whole.len() {
            assert!(scan(&whole[..length], 2, &[]).is_err(), "{length}");
        }
        assert!(scan(whole, 2, &[]).is_ok());
    }

    #[test]
    fn a_row_of_another_width_or_a_cell_that_is_no_string_is_refused() {
        for bytes in
            [r#"[["a"]]"#, r#"[["a","b","c"]]"#, r#"[["a",1]]"#, r#"[["a",true]]"#, r#"[null]"#, r#"[["a","b"]] x"#]
        {
            assert!(scan(bytes.as_bytes(), 2, &[]).is_err(), "{bytes}");
        }
    }

    #[test]
    fn rows_are_skipped_while_nobody_says_what_they_hold() {
        let mut scanner = Scanner::default();
        scanner.feed(br#"{"data":[["a",{"b":"]"}],[]],"code":"1"}"#);
        scanner.end();
        let mut row = Row::default();

        assert_eq!(scanner.next(&mut row), Ok(Event::Data));
        assert_eq!(scanner.next(&mut row), Ok(Event::Member("code".into(), b"\"1\"".to_vec())));
        assert_eq!(scanner.next(&mut row), Ok(Event::End));
    }
}
