//! The statements that Freshet sends: quoting, batch tables, and the sealing of a Stream.
//!
//! Pure functions: names and texts in, a statement out. A batch table is numbered, and its rows carry gapless
//! ordinals from 1, so the same statement reads the same rows in the same order every time.

use freshet_core::connector::{Column, Kind, ModelSpec};

/// The column of a batch table that holds a row's place.
pub const ORDINAL: &str = "FRESHET_ORDINAL";
/// What a Stream adds to its source's columns.
pub const ACTION: &str = "METADATA$ACTION";
/// See [`ACTION`].
pub const IS_UPDATE: &str = "METADATA$ISUPDATE";
/// See [`ACTION`].
pub const ROW_ID: &str = "METADATA$ROW_ID";

/// An identifier, quoted: its letters count.
#[must_use]
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Identifiers, quoted, with commas.
#[must_use]
pub fn identifiers<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(identifier).collect::<Vec<_>>().join(", ")
}

/// A text literal. A backslash escapes in Snowflake's literals.
#[must_use]
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A literal of a column's type, from the text of [`super::read::cell_text`].
#[must_use]
pub fn typed_literal(kind: Kind, text: &str) -> String {
    match kind {
        Kind::Int | Kind::Decimal => text.to_owned(),
        Kind::Float => format!("{}::float", literal(text)),
        Kind::Bool => text.to_owned(),
        Kind::Bytes => format!("to_binary({}, 'HEX')", literal(text)),
        Kind::Date => format!("{}::date", literal(text)),
        Kind::Time => format!("{}::time", literal(text)),
        Kind::Timestamp => format!("{}::timestamp_ntz", literal(text)),
        Kind::TimestampTz => format!("{}::timestamp_tz", literal(text)),
        Kind::Text | Kind::Json | Kind::Interval => literal(text),
    }
}

/// What stands after FROM for a model.
#[must_use]
pub fn relation(model: &ModelSpec) -> String {
    match model {
        ModelSpec::Table { schema, table } => format!("{}.{}", identifier(schema), identifier(table)),
        // Lines of its own, so that a comment at the end does not swallow the bracket.
        ModelSpec::Sql { sql } => format!("(\n{}\n) as model", sql.trim_end().trim_end_matches(';')),
    }
}

fn names(columns: &[Column]) -> impl Iterator<Item = &str> {
    columns.iter().map(|column| column.name.as_str())
}

/// The planned columns of a model, by name.
#[must_use]
pub fn select(model: &ModelSpec, columns: &[Column]) -> String {
    format!("select {} from {}", identifiers(names(columns)), relation(model))
}

/// Rows after a place in the order of `columns`, spelt out: Snowflake does not compare rows of values.
///
/// `a > 1 or (a = 1 and (b > 2 or …))`, each value a literal.
#[must_use]
pub fn after(columns: &[String], values: &[String]) -> String {
    let mut condition = String::new();
    for (name, value) in columns.iter().zip(values).rev() {
        let name = identifier(name);
        condition = if condition.is_empty() {
            format!("{name} > {value}")
        } else {
            format!("{name} > {value} or ({name} = {value} and ({condition}))")
        };
    }
    format!("({condition})")
}

/// What a batch table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Changes taken out of a Stream: gone from it, so never dropped while there are rows in it.
    Stream,
    /// A copy of a model's rows: worth nothing once its batch is over.
    Full,
}

impl Stage {
    fn prefix(self) -> &'static str {
        match self {
            Self::Stream => "FRESHET_STG_",
            Self::Full => "FRESHET_FULL_",
        }
    }
}

/// A numbered batch table of a sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchTable {
    /// Freshet's schema, as SHOW writes it.
    pub schema: String,
    /// Made here, never of what a user typed: prefix, the sync's id, 12 digits.
    pub name: String,
}

impl BatchTable {
    /// The table of a sync's batch; `sync` holds letters, digits and `_` alone.
    #[must_use]
    pub fn new(stage: Stage, schema: &str, sync: &str, seq: i64) -> Self {
        Self { schema: schema.to_owned(), name: format!("{}{}_{seq:012}", stage.prefix(), sync.to_ascii_uppercase()) }
    }

    /// The batch's number, of a name that [`BatchTable::new`] made for this sync.
    #[must_use]
    pub fn number(stage: Stage, sync: &str, name: &str) -> Option<i64> {
        let digits = name.strip_prefix(stage.prefix())?.strip_prefix(&sync.to_ascii_uppercase())?.strip_prefix('_')?;
        (digits.len() >= 12 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
    }

    fn quoted(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }

    /// Makes the table from a model's rows, ordered by key. Harmless when repeated: what is there stays as it is.
    #[must_use]
    pub fn seal_full(&self, model: &ModelSpec, columns: &[Column], key: &[String]) -> String {
        let order = identifiers(key.iter().map(String::as_str));
        format!(
            "create transient table if not exists {} as\nselect {}, row_number() over (order by {order}) as {}\nfrom {}",
            self.quoted(),
            identifiers(names(columns)),
            identifier(ORDINAL),
            relation(model),
        )
    }

    /// Takes a Stream's changes into the table, and moves the Stream past them, in one atomic step.
    ///
    /// Harmless when repeated: while the table is there nothing is taken. No WHERE, ever: what it left out would be
    /// gone from the Stream too. The order is by key, a DELETE before an INSERT, so what folds into one change is
    /// adjacent: both halves of an update, and a row that was deleted and made again under another row id. The last
    /// tie is broken by the row's id, and whatever the order was, the ordinals keep it.
    #[must_use]
    pub fn seal_stream(&self, stream: &str, columns: &[Column], key: &[String]) -> String {
        let all = names(columns).chain([ACTION, IS_UPDATE, ROW_ID]);
        let order = identifiers(key.iter().map(String::as_str).chain([ACTION, ROW_ID]));
        format!(
            "create transient table if not exists {} as\nselect {}, row_number() over (order by {order}) as {}\nfrom {stream}",
            self.quoted(),
            identifiers(all),
            identifier(ORDINAL),
        )
    }

    /// How many rows there are, and the last ordinal: equal, for the ordinals have no gaps.
    #[must_use]
    pub fn count(&self) -> String {
        format!("select count(*), max({}) from {}", identifier(ORDINAL), self.quoted())
    }

    /// Rows after an ordinal, in order, the ordinal last.
    #[must_use]
    pub fn read(&self, columns: &[Column], stage: Stage, after: i64) -> String {
        let metadata: &[&str] = match stage {
            Stage::Stream => &[ACTION, IS_UPDATE, ROW_ID],
            Stage::Full => &[],
        };
        let ordinal = identifier(ORDINAL);
        format!(
            "select {}\nfrom {}\nwhere {ordinal} > {after}\norder by {ordinal}",
            identifiers(names(columns).chain(metadata.iter().copied()).chain([ORDINAL])),
            self.quoted(),
        )
    }

    /// Gives a delivered Stream batch's rows back and leaves the empty table: while it stands, a late repeat of the
    /// seal takes nothing out of the Stream.
    #[must_use]
    pub fn truncate(&self) -> String {
        format!("truncate table if exists {}", self.quoted())
    }

    /// Removes the table: at once for a copy of rows, for a Stream's batch only when it is empty and older than
    /// any statement can run.
    #[must_use]
    pub fn drop(&self) -> String {
        format!("drop table if exists {}", self.quoted())
    }
}

/// Lists a sync's batch tables, with `name`, `rows` and `created_on`. The pattern's `_` matches any letter:
/// [`BatchTable::number`] has the last word.
#[must_use]
pub fn show_batch_tables(stage: Stage, schema: &str, sync: &str) -> String {
    let pattern = format!("{}{}_%", stage.prefix(), sync.to_ascii_uppercase());
    format!("show tables like {} in schema {}", literal(&pattern), identifier(schema))
}

/// One batch table as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTable {
    /// Its number.
    pub seq: i64,
    /// How many rows it holds.
    pub rows: u64,
    /// How long ago it was made, in seconds.
    pub age_s: i64,
}

/// What is to be done with the batch tables found before a seal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Tables with rows that no batch accounts for, oldest first: a seal that came late took them out of the Stream.
    /// They are delivered before anything new is sealed.
    pub adopt: Vec<i64>,
    /// Empty tables that no late seal can ask for any more.
    pub drop: Vec<i64>,
}

/// Sorts the batch tables of a Stream before batch `next` is sealed. `longest_statement_s` is how long a statement may
/// run, its wait for a warehouse included.
#[must_use]
pub fn sweep(found: &[FoundTable], next: i64, longest_statement_s: i64) -> Sweep {
    let mut sweep = Sweep::default();
    for table in found {
        if table.rows > 0 && table.seq != next {
            sweep.adopt.push(table.seq);
        } else if table.rows == 0 && table.seq < next && table.age_s > longest_statement_s {
            sweep.drop.push(table.seq);
        }
    }
    sweep.adopt.sort_unstable();
    sweep.drop.sort_unstable();
    sweep
}

/// What a Stream is made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamOn {
    /// A table.
    Table,
    /// A view.
    View,
    /// A dynamic table.
    DynamicTable,
}

/// How a Stream is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOptions {
    /// Of what.
    pub on: StreamOn,
    /// Inserts alone, each one.
    pub append_only: bool,
    /// The first batch holds the rows that are there already.
    pub initial_rows: bool,
}

/// A sync's own Stream: `FRESHET_STREAM_` and the sync's id.
#[must_use]
pub fn stream_name(schema: &str, sync: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(&format!("FRESHET_STREAM_{}", sync.to_ascii_uppercase())))
}

/// Makes a Stream on `source`, both names quoted; harmless when repeated.
#[must_use]
pub fn create_stream(stream: &str, source: &str, options: StreamOptions, sync: &str) -> String {
    let on = match options.on {
        StreamOn::Table => "table",
        StreamOn::View => "view",
        StreamOn::DynamicTable => "dynamic table",
    };
    let mut sql = format!("create stream if not exists {stream} on {on} {source}");
    if options.append_only {
        sql.push_str(" append_only = true");
    }
    if options.initial_rows {
        sql.push_str(" show_initial_rows = true");
    }
    sql.push_str(&format!(" comment = {}", literal(&format!("freshet:{sync}"))));
    sql
}

/// Whether a Stream may hold changes; true now and then when it holds none, never the other way. Asked first, so that
/// an idle sync wakes no warehouse.
#[must_use]
pub fn has_data(stream: &str) -> String {
    format!("select system$stream_has_data({})", literal(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: &str = "snc_01jd0000000000000000000000";

    fn columns() -> Vec<Column> {
        ["ID", "na\"me"]
            .map(|name| Column { name: name.into(), kind: Kind::Text, source_type: "text".into(), nullable: true })
            .into()
    }

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(identifier("we\"ird"), "\"we\"\"ird\"");
        assert_eq!(literal(r"o'clock \' or 1=1 --"), r"'o''clock \\'' or 1=1 --'");
    }

    #[test]
    fn a_stream_is_sealed_in_one_statement_without_a_filter() {
        let table = BatchTable::new(Stage::Stream, "FRESHET", SYNC, 7);

        let sql = table.seal_stream(&stream_name("FRESHET", SYNC), &columns(), &["ID".into()]);

        assert_eq!(
            sql,
            "create transient table if not exists \
             \"FRESHET\".\"FRESHET_STG_SNC_01JD0000000000000000000000_000000000007\" as\n\
             select \"ID\", \"na\"\"me\", \"METADATA$ACTION\", \"METADATA$ISUPDATE\", \"METADATA$ROW_ID\", \
             row_number() over (order by \"ID\", \"METADATA$ACTION\", \"METADATA$ROW_ID\") as \"FRESHET_ORDINAL\"\n\
             from \"FRESHET\".\"FRESHET_STREAM_SNC_01JD0000000000000000000000\""
        );
    }

    #[test]
    fn a_batch_is_read_from_an_ordinal_on_in_its_one_order() {
        let table = BatchTable::new(Stage::Stream, "FRESHET", SYNC, 7);

        let sql = table.read(&columns(), Stage::Stream, 40);

        assert!(sql.ends_with("where \"FRESHET_ORDINAL\" > 40\norder by \"FRESHET_ORDINAL\""), "{sql}");
        assert!(sql.starts_with("select \"ID\", \"na\"\"me\", \"METADATA$ACTION\","), "{sql}");
        assert!(!table.read(&columns(), Stage::Full, 0).contains("METADATA$"));
    }

    #[test]
    fn a_number_reads_back_and_strangers_have_none() {
        let name = BatchTable::new(Stage::Stream, "FRESHET", SYNC, 12).name;

        assert_eq!(BatchTable::number(Stage::Stream, SYNC, &name), Some(12));
        assert_eq!(BatchTable::number(Stage::Full, SYNC, &name), None);
        assert_eq!(BatchTable::number(Stage::Stream, "snc_other", &name), None);
        assert_eq!(BatchTable::number(Stage::Stream, SYNC, &format!("{name}X")), None);
    }

    #[test]
    fn rows_that_a_late_seal_took_are_adopted_oldest_first_and_tombstones_dropped_once_old() {
        let table = |seq, rows, age_s| FoundTable { seq, rows, age_s };
        let found = [table(9, 5, 10), table(3, 2, 9_000), table(7, 0, 9_000), table(8, 0, 60), table(10, 4, 1)];

        let sweep = sweep(&found, 10, 3_600);

        assert_eq!(sweep, Sweep { adopt: vec![3, 9], drop: vec![7] });
    }

    #[test]
    fn a_place_in_an_order_of_several_columns_is_spelt_out() {
        let columns = ["A".to_owned(), "B".to_owned(), "C".to_owned()];
        let values = ["1".to_owned(), "'x'".to_owned(), "2".to_owned()];

        let condition = after(&columns, &values);

        assert_eq!(condition, "(\"A\" > 1 or (\"A\" = 1 and (\"B\" > 'x' or (\"B\" = 'x' and (\"C\" > 2)))))");
    }

    #[test]
    fn a_stream_is_made_with_its_options_and_asked_before_it_is_read() {
        let options = StreamOptions { on: StreamOn::View, append_only: true, initial_rows: true };

        assert_eq!(
            create_stream("\"F\".\"S\"", "\"P\".\"ORDERS\"", options, SYNC),
            format!(
                "create stream if not exists \"F\".\"S\" on view \"P\".\"ORDERS\" append_only = true \
                 show_initial_rows = true comment = 'freshet:{SYNC}'"
            )
        );
        assert_eq!(has_data("\"F\".\"S\""), "select system$stream_has_data('\"F\".\"S\"')");
    }
}
