//! The rows of a Stream's batch folded into changes.
//!
//! Rows come by key, a DELETE before an INSERT, so what makes one change is adjacent:
//!
//! | rows of one key | change |
//! |---|---|
//! | DELETE | `d`, with the row as it was |
//! | INSERT | `c` |
//! | DELETE, INSERT | `u`, with both images: also when the row was deleted and made again under another row id |
//! | further DELETEs | none: the key is gone once |
//! | further INSERTs | by the sync's policy: dead letters, or the last one wins |
//!
//! A change of key is a DELETE of the one and an INSERT of the other: a delete and a create. Two rows that swap
//! their keys are two updates. A row without a key folds with none and is left to the sink, which buries it.

use freshet_core::connector::{Cell, Change, DuplicateKeys, EncodeError, Flow, Op, Row, Sink};
use freshet_core::error::{Code, Error, Result};

use super::read::Token;

/// What a Stream says of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Insert,
    Delete,
}

impl Action {
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        match text {
            b"INSERT" => Some(Self::Insert),
            b"DELETE" => Some(Self::Delete),
            _ => None,
        }
    }
}

/// What is known of the key at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// There is none yet.
    None,
    /// It was deleted; the row waits in `before`.
    Deleted,
    /// It was inserted, and that is handed on; the row is in `after`, for its key.
    Sent,
    /// It was inserted; the row waits in `after`, and perhaps the one before it in `before`.
    Waits { updated: bool },
}

/// Takes a batch's rows in order and hands their changes to a sink. Holds two rows, however many fold into one.
pub(super) struct Fold {
    /// The places of the key's columns.
    places: Vec<usize>,
    duplicates: DuplicateKeys,
    key: Key,
    before: Row,
    after: Row,
    full: bool,
}

impl Fold {
    pub(super) fn new(places: Vec<usize>, duplicates: DuplicateKeys) -> Self {
        Self { places, duplicates, key: Key::None, before: Row::default(), after: Row::default(), full: false }
    }

    /// Goes on after a row that was handed on already: what follows may be of its key.
    pub(super) fn resume(&mut self, action: Action, row: &mut Row) {
        if action == Action::Insert && self.has_key(row) {
            std::mem::swap(&mut self.after, row);
            self.key = Key::Sent;
        }
    }

    /// Takes the next row, whose place in the batch is `ordinal`.
    pub(super) async fn take(
        &mut self,
        action: Action,
        row: &mut Row,
        ordinal: i64,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        if !self.is_same(row) {
            self.close(sink)?;
            self.flush(ordinal - 1, sink).await?;
        }
        match action {
            Action::Delete => self.delete(row, sink)?,
            Action::Insert => self.insert(row, sink)?,
        }
        match self.key {
            // Everything up to this row is handed on.
            Key::None | Key::Sent => self.flush(ordinal, sink).await,
            Key::Deleted | Key::Waits { .. } => Ok(()),
        }
    }

    /// Hands on what waits: there are no more rows of the key.
    pub(super) fn close(&mut self, sink: &mut dyn Sink) -> Result<()> {
        let key = std::mem::replace(&mut self.key, Key::None);
        let change = match key {
            Key::None | Key::Sent => return Ok(()),
            Key::Deleted => Change { op: Op::Delete, before: Some(&self.before), after: None },
            Key::Waits { updated: true } => {
                Change { op: Op::Update, before: Some(&self.before), after: Some(&self.after) }
            }
            Key::Waits { updated: false } => Change { op: Op::Create, before: None, after: Some(&self.after) },
        };
        self.full |= sink.push(change)? == Flow::Full;
        Ok(())
    }

    fn delete(&mut self, row: &mut Row, sink: &mut dyn Sink) -> Result<()> {
        if !self.has_key(row) {
            self.full |= sink.push(Change { op: Op::Delete, before: Some(row), after: None })? == Flow::Full;
            return Ok(());
        }
        match self.key {
            Key::None | Key::Deleted => {
                std::mem::swap(&mut self.before, row);
                self.key = Key::Deleted;
                Ok(())
            }
            Key::Sent | Key::Waits { .. } => Err(Error::new(
                Code::SnowflakeAnswer,
                "a batch table's rows are out of order: an insert before a delete",
            )),
        }
    }

    fn insert(&mut self, row: &mut Row, sink: &mut dyn Sink) -> Result<()> {
        let has_key = self.has_key(row);
        let wait = has_key && self.duplicates == DuplicateKeys::LastWins;
        let created = Change { op: Op::Create, before: None, after: Some(row) };
        let flow = match self.key {
            Key::None | Key::Deleted | Key::Waits { .. } if wait => {
                let updated = matches!(self.key, Key::Deleted | Key::Waits { updated: true });
                self.key = Key::Waits { updated };
                Flow::More
            }
            // Sent before the policy was another.
            Key::Sent if wait => {
                self.key = Key::Waits { updated: false };
                Flow::More
            }
            Key::None => {
                self.key = if has_key { Key::Sent } else { Key::None };
                sink.push(created)?
            }
            Key::Deleted => {
                self.key = Key::Sent;
                sink.push(Change { op: Op::Update, before: Some(&self.before), after: Some(row) })?
            }
            Key::Sent | Key::Waits { .. } => {
                let reason = "the key came before in this batch".to_owned();
                sink.bury(created, EncodeError { code: Code::ModelKeyDuplicate, column: String::new(), reason })?
            }
        };
        self.full |= flow == Flow::Full;
        if has_key {
            std::mem::swap(&mut self.after, row);
        }
        Ok(())
    }

    /// Hands a full chunk over; every row up to `ordinal` is in it or before it.
    async fn flush(&mut self, ordinal: i64, sink: &mut dyn Sink) -> Result<()> {
        if std::mem::take(&mut self.full) { sink.flush(Token::Ordinal { ordinal }.write()).await } else { Ok(()) }
    }

    fn has_key(&self, row: &Row) -> bool {
        self.places.iter().all(|place| row.cells()[*place] != Cell::Null)
    }

    /// Whether a row has the key at hand: the very same, as the bytes of a message's key would be.
    fn is_same(&self, row: &Row) -> bool {
        let known = match self.key {
            Key::None => return false,
            Key::Deleted => &self.before,
            Key::Sent | Key::Waits { .. } => &self.after,
        };
        self.places.iter().all(|place| same(row, known, *place))
    }
}

fn same(one: &Row, other: &Row, place: usize) -> bool {
    match (one.cells()[place], other.cells()[place]) {
        (Cell::Number(a), Cell::Number(b))
        | (Cell::Text(a), Cell::Text(b))
        | (Cell::Bytes(a), Cell::Bytes(b))
        | (Cell::Json(a), Cell::Json(b)) => one.bytes(a) == other.bytes(b),
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// What a sink was given: `u 1 a>b`, a dead letter with `!`, a flush as its token.
    #[derive(Default)]
    struct Seen {
        lines: Vec<String>,
        tokens: Vec<(usize, i64)>,
        chunk: usize,
        waiting: usize,
    }

    fn image(row: Option<&Row>) -> String {
        let text = |row: &Row| match row.cells()[1] {
            Cell::Text(span) => String::from_utf8(row.bytes(span).to_vec()).unwrap(),
            _ => String::new(),
        };
        row.map(text).unwrap_or_default()
    }

    impl Seen {
        fn line(&mut self, change: Change<'_>, mark: &str) -> Flow {
            let key = match change.row().unwrap().cells()[0] {
                Cell::Int(key) => key.to_string(),
                _ => "null".into(),
            };
            let op = change.op.letter();
            self.lines.push(format!("{mark}{op} {key} {}>{}", image(change.before), image(change.after)));
            self.waiting += 1;
            if self.waiting >= self.chunk { Flow::Full } else { Flow::More }
        }
    }

    #[async_trait]
    impl Sink for Seen {
        fn push(&mut self, change: Change<'_>) -> Result<Flow> {
            Ok(self.line(change, ""))
        }

        fn bury(&mut self, change: Change<'_>, reason: EncodeError) -> Result<Flow> {
            assert_eq!(reason.code, Code::ModelKeyDuplicate);
            Ok(self.line(change, "!"))
        }

        async fn flush(&mut self, token: Value) -> Result<()> {
            self.tokens.push((self.lines.len(), token["ordinal"].as_i64().unwrap()));
            self.waiting = 0;
            Ok(())
        }
    }

    type Line = (Option<i64>, Action, &'static str);

    fn row(line: &Line) -> Row {
        let mut row = Row::default();
        row.push(line.0.map_or(Cell::Null, Cell::Int));
        row.push_bytes(Cell::Text, line.2.as_bytes());
        row
    }

    /// Folds the rows after `from`, as [`super::super::changes`] does.
    async fn fold(rows: &[Line], from: usize, duplicates: DuplicateKeys, chunk: usize) -> Seen {
        let mut seen = Seen { chunk, ..Seen::default() };
        let mut fold = Fold::new(vec![0], duplicates);
        if from > 0 {
            fold.resume(rows[from - 1].1, &mut row(&rows[from - 1]));
        }
        for (place, line) in rows.iter().enumerate().skip(from) {
            fold.take(line.1, &mut row(line), place as i64 + 1, &mut seen).await.unwrap();
        }
        fold.close(&mut seen).unwrap();
        seen
    }

    use Action::{Delete, Insert};
    use DuplicateKeys::{DeadLetter, LastWins};

    #[tokio::test]
    async fn rows_of_one_key_fold_into_one_change() {
        let rows = [
            (Some(1), Delete, "gone"),
            (Some(2), Insert, "new"),
            (Some(3), Delete, "old"),
            (Some(3), Insert, "new"),
            (Some(4), Delete, "a"),
            (Some(4), Delete, "b"),
            (Some(5), Insert, "last"),
        ];

        for duplicates in [DeadLetter, LastWins] {
            let seen = fold(&rows, 0, duplicates, 100).await;

            assert_eq!(seen.lines, ["d 1 gone>", "c 2 >new", "u 3 old>new", "d 4 b>", "c 5 >last"]);
            assert!(seen.tokens.is_empty());
        }
    }

    #[tokio::test]
    async fn a_change_of_key_is_a_delete_and_a_create_and_a_swap_two_updates() {
        // Row a went from 1 to 9; rows b and c swapped the keys 2 and 3.
        let rows = [
            (Some(1), Delete, "a"),
            (Some(2), Delete, "b"),
            (Some(2), Insert, "c"),
            (Some(3), Delete, "c"),
            (Some(3), Insert, "b"),
            (Some(9), Insert, "a"),
        ];

        let seen = fold(&rows, 0, DeadLetter, 100).await;

        assert_eq!(seen.lines, ["d 1 a>", "u 2 b>c", "u 3 c>b", "c 9 >a"]);
    }

    #[tokio::test]
    async fn further_inserts_of_a_key_are_dead_letters_or_the_last_wins() {
        let rows = [
            (Some(1), Insert, "a"),
            (Some(1), Insert, "b"),
            (Some(2), Delete, "o"),
            (Some(2), Insert, "p"),
            (Some(2), Insert, "q"),
            (Some(2), Insert, "r"),
        ];

        let buried = fold(&rows, 0, DeadLetter, 100).await;
        let won = fold(&rows, 0, LastWins, 100).await;

        assert_eq!(buried.lines, ["c 1 >a", "!c 1 >b", "u 2 o>p", "!c 2 >q", "!c 2 >r"]);
        assert_eq!(won.lines, ["c 1 >b", "u 2 o>r"]);
    }

    #[tokio::test]
    async fn rows_without_a_key_fold_with_none() {
        let rows = [(None, Delete, "a"), (None, Delete, "b"), (None, Insert, "c"), (Some(1), Insert, "d")];

        for duplicates in [DeadLetter, LastWins] {
            let seen = fold(&rows, 0, duplicates, 1).await;

            assert_eq!(seen.lines, ["d null a>", "d null b>", "c null >c", "c 1 >d"]);
        }
    }

    #[tokio::test]
    async fn a_policy_that_changes_between_two_rows_of_a_key_sends_the_last() {
        let rows = [(Some(1), Insert, "a"), (Some(1), Insert, "b"), (Some(1), Insert, "c")];

        let seen = fold(&rows, 1, LastWins, 100).await;

        assert_eq!(seen.lines, ["c 1 >c"]);
    }

    #[tokio::test]
    async fn many_inserts_of_one_key_are_handed_over_in_chunks() {
        let rows = [(Some(1), Insert, "a"); 10];

        let seen = fold(&rows, 0, DeadLetter, 3).await;

        assert_eq!(seen.tokens, [(3, 3), (6, 6), (9, 9)]);
    }

    fn lines() -> impl Strategy<Value = Vec<Line>> {
        let line = (proptest::option::weighted(0.9, 0..6_i64), any::<bool>(), 0..4_usize);
        proptest::collection::vec(line, 0..40).prop_map(|lines| {
            let action = |insert| if insert { Insert } else { Delete };
            let mut lines: Vec<Line> = lines
                .into_iter()
                .map(|(key, insert, text)| (key, action(insert), ["a", "b", "c", "d"][text]))
                .collect();
            lines.sort_by_key(|line| (line.0.is_none(), line.0, line.1 == Insert));
            lines
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_batch_goes_on_from_any_token_as_if_it_had_not_been_interrupted(
            rows in lines(), chunk in 1..5_usize, last_wins in any::<bool>(),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let duplicates = if last_wins { LastWins } else { DeadLetter };
                let whole = fold(&rows, 0, duplicates, chunk).await;
                for (handed_on, token) in &whole.tokens {
                    let rest = fold(&rows, *token as usize, duplicates, chunk).await;
                    assert_eq!(rest.lines, whole.lines[*handed_on..]);
                }
            });
        }

        #[test]
        fn a_table_that_takes_the_changes_has_what_the_rows_say(rows in lines()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let seen = runtime.block_on(fold(&rows, 0, LastWins, 100));
            let mut expected = std::collections::BTreeMap::new();
            for line in rows.iter().filter(|line| line.0.is_some()) {
                expected.insert(line.0.unwrap().to_string(), (line.1 == Insert).then(|| line.2.to_owned()));
            }

            let mut found = std::collections::BTreeMap::new();
            for line in seen.lines.iter().filter(|line| !line.contains("null")) {
                let [op, key, images] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
                let after = images.split_once('>').unwrap().1.to_owned();
                assert!(found.insert(key.to_owned(), (op != "d").then_some(after)).is_none());
            }
            prop_assert_eq!(found, expected);
        }
    }
}
