//! The statements that Freshet sends: quoting, batch tables, and the sealing of a Stream.
//!
//! Pure functions: names and texts in, a statement out. A batch table is numbered, and its rows carry gapless
//! ordinals from 1, so the same statement reads the same rows in the same order every time.

pub mod diff;

use freshet_core::connector::{Column, Kind, ModelSpec, NewStream, StreamOn};

/// The column of a batch table that holds a row's place.
pub const ORDINAL: &str = "FRESHET_ORDINAL";
/// The column of a Stream's batch table that says for which plan it was made: [`plan_mark`].
pub const PLAN: &str = "FRESHET_PLAN";
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
        ModelSpec::Table { schema, table: name } | ModelSpec::Stream { schema, stream: name } => {
            format!("{}.{}", identifier(schema), identifier(name))
        }
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

/// A model's first rows, in the order and with the ordinals that [`BatchTable::seal_full`] would give them.
#[must_use]
pub fn look_full(model: &ModelSpec, columns: &[Column], key: &[String], limit: usize) -> String {
    let (order, ordinal) = (identifiers(key.iter().map(String::as_str)), identifier(ORDINAL));
    let columns = identifiers(names(columns));
    let from = relation(model);
    format!(
        "select {columns}, row_number() over (order by {order}) as {ordinal}\nfrom {from}\norder by {ordinal} limit {limit}"
    )
}

/// A Stream's first changes, in the order and with the ordinals that [`BatchTable::seal_stream`] would give them. A SELECT
/// does not move the Stream.
#[must_use]
pub fn look_stream(stream: &str, columns: &[Column], key: &[String], limit: usize) -> String {
    let (all, ordinal) = (identifiers(names(columns).chain([ACTION])), identifier(ORDINAL));
    let order = identifiers(key.iter().map(String::as_str).chain([ACTION, ROW_ID]));
    format!(
        "select {all}, row_number() over (order by {order}) as {ordinal}\nfrom {stream}\norder by {ordinal} limit {limit}"
    )
}

/// Counts what a Stream's rows fold into, from the Stream or from a batch table (quoted): keys that are created, updated,
/// deleted; further inserts of a key; inserts and deletes without a key.
#[must_use]
pub fn count_folded(from: &str, key: &[String]) -> String {
    let missing = key.iter().map(|name| format!("{} is null", identifier(name))).collect::<Vec<_>>().join(" or ");
    let (action, key) = (identifier(ACTION), identifiers(key.iter().map(String::as_str)));
    let sum = |condition: &str, what: &str| format!("coalesce(sum(case when {condition} then {what} else 0 end), 0)");
    let sums = [
        sum("missing = 0 and inserts > 0 and deletes = 0", "1"),
        sum("missing = 0 and inserts > 0 and deletes > 0", "1"),
        sum("missing = 0 and inserts = 0 and deletes > 0", "1"),
        sum("missing = 0 and inserts > 1", "inserts - 1"),
        sum("missing > 0", "inserts"),
        sum("missing > 0", "deletes"),
    ];
    format!(
        "select {}\nfrom (select sum(case when {action} = 'INSERT' then 1 else 0 end) as inserts, \
         sum(case when {action} = 'DELETE' then 1 else 0 end) as deletes, \
         max(case when {missing} then 1 else 0 end) as missing from {from} group by {key}) as keys",
        sums.join(", ")
    )
}

/// Stands for what a Stream's batch table holds, and in which order: a table with another mark was made for an
/// earlier version of the model.
#[must_use]
pub fn plan_mark(columns: &[Column], key: &[String]) -> String {
    let mut mark = xxhash_rust::xxh3::Xxh3Default::new();
    let parts = columns.iter().flat_map(|column| [&column.name, &column.source_type]).chain(key);
    for part in parts {
        mark.update(&(part.len() as u64).to_le_bytes());
        mark.update(part.as_bytes());
    }
    format!("{:016x}", mark.digest())
}

/// What a batch table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Changes taken out of a Stream: gone from it, so never dropped while there are rows in it.
    Stream,
    /// A copy of a model's rows: worth nothing once its batch is over.
    Full,
    /// A copy of a model's rows that differences are taken from.
    Snapshot,
    /// What differs between two snapshots.
    Difference,
}

impl Stage {
    fn prefix(self) -> &'static str {
        match self {
            Self::Stream => "FRESHET_STG_",
            Self::Full => "FRESHET_FULL_",
            Self::Snapshot => "FRESHET_SNAP_",
            Self::Difference => "FRESHET_DIFF_",
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

    /// As [`BatchTable::new`], with a mark of letters and digits behind the number.
    #[must_use]
    pub fn marked(stage: Stage, schema: &str, sync: &str, seq: i64, mark: &str) -> Self {
        let Self { schema, name } = Self::new(stage, schema, sync, seq);
        Self { schema, name: format!("{name}_{mark}") }
    }

    /// The batch's number, of a name that [`BatchTable::marked`] made for this sync.
    #[must_use]
    pub fn marked_number(stage: Stage, sync: &str, name: &str) -> Option<i64> {
        Self::number(stage, sync, name.rsplit_once('_')?.0)
    }

    pub(super) fn quoted(&self) -> String {
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
            "create transient table if not exists {} as\nselect {}, {} as {}, row_number() over (order by {order}) as {}\n\
             from {stream}",
            self.quoted(),
            identifiers(all),
            literal(&plan_mark(columns, key)),
            identifier(PLAN),
            identifier(ORDINAL),
        )
    }

    /// How many rows there are, and the last ordinal: equal, for the ordinals have no gaps.
    #[must_use]
    pub fn count(&self) -> String {
        format!("select count(*), max({}) from {}", identifier(ORDINAL), self.quoted())
    }

    /// The same of a Stream's batch, and for which plan it was made.
    #[must_use]
    pub fn count_changes(&self) -> String {
        format!("select count(*), max({}), max({}) from {}", identifier(ORDINAL), identifier(PLAN), self.quoted())
    }

    /// Rows after an ordinal, in order, the ordinal last; of a Stream's batch each row's action before it.
    #[must_use]
    pub fn read(&self, columns: &[Column], stage: Stage, after: i64) -> String {
        let metadata: &[&str] = match stage {
            Stage::Stream => &[ACTION],
            Stage::Full | Stage::Snapshot | Stage::Difference => &[],
        };
        let ordinal = identifier(ORDINAL);
        format!(
            "select {}\nfrom {}\nwhere {ordinal} > {after}\norder by {ordinal}",
            identifiers(names(columns).chain(metadata.iter().copied()).chain([ORDINAL])),
            self.quoted(),
        )
    }

    /// The columns that the table has, and no row.
    #[must_use]
    pub fn columns(&self) -> String {
        format!("select * from {} limit 0", self.quoted())
    }

    /// As [`BatchTable::read`] of a Stream's batch that was taken for an earlier version of the model: a column that it
    /// lacks is NULL, and its rows are numbered again by the key as it is now, which is as total an order.
    #[must_use]
    pub fn read_anew(&self, columns: &[Column], missing: &[String], key: &[String], after: i64) -> String {
        let (ordinal, place) = (identifier(ORDINAL), identifier("FRESHET_PLACE"));
        let has = |name: &&str| !missing.iter().any(|gone| gone == name);
        let outer = names(columns)
            .map(|name| if has(&name) { identifier(name) } else { format!("null as {}", identifier(name)) });
        let inner = identifiers(names(columns).filter(has).chain([ACTION]));
        let order = identifiers(key.iter().map(String::as_str).chain([ACTION, ORDINAL]));
        format!(
            "select {}, {}, {place} as {ordinal}\nfrom (select {inner}, row_number() over (order by {order}) as {place} \
             from {}) as placed\nwhere {place} > {after}\norder by {place}",
            outer.collect::<Vec<_>>().join(", "),
            identifier(ACTION),
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

/// Lists a sync's batch tables, `limit` of them after a name, with `name`, `rows` and `created_on`. The pattern's `_`
/// matches any letter: [`BatchTable::number`] has the last word.
#[must_use]
pub fn show_batch_tables(stage: Stage, schema: &str, sync: &str, limit: usize, after: Option<&str>) -> String {
    let pattern = format!("{}{}_%", stage.prefix(), sync.to_ascii_uppercase());
    let from = after.map(|name| format!(" from {}", literal(name))).unwrap_or_default();
    format!("show tables like {} in schema {} limit {limit}{from}", literal(&pattern), identifier(schema))
}

/// One batch table as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundTable {
    /// Its number.
    pub seq: i64,
    /// How many rows it holds.
    pub rows: u64,
    /// When it was made, in milliseconds since the Unix epoch; none where Snowflake's answer does not read.
    pub made_ms: Option<i64>,
}

/// The batch table of a Stream that goes out next: the one with rows that was made first.
///
/// A table's rows were in the Stream before those of any table made after it, so this is the order of the changes,
/// whichever attempt made which table: also one that came so late that nobody waited for it any more.
#[must_use]
pub fn oldest_with_rows(found: &[FoundTable]) -> Option<FoundTable> {
    found.iter().filter(|table| table.rows > 0).min_by_key(|table| (table.made_ms, table.seq)).copied()
}

/// The numbers of empty tables below `next` that no late seal can ask for any more: older than any statement can run.
/// Until then each stands, and a repeat of its seal takes nothing out of the Stream.
#[must_use]
pub fn spent(found: &[FoundTable], next: i64, now_ms: i64, longest_statement_s: i64) -> Vec<i64> {
    let is_old = |table: &FoundTable| table.made_ms.is_some_and(|made| now_ms - made > longest_statement_s * 1_000);
    found.iter().filter(|table| table.rows == 0 && table.seq < next && is_old(table)).map(|table| table.seq).collect()
}

/// Makes a Stream in `schema`, on `on` (quoted). Harmless when repeated, unless it is to take another's place.
#[must_use]
pub fn create_stream(schema: &str, new: &NewStream, on: &str) -> String {
    let kind = match new.on.kind {
        StreamOn::Table => "table",
        StreamOn::View => "view",
        StreamOn::DynamicTable => "dynamic table",
    };
    let (replace, guard) = if new.replace { ("or replace ", "") } else { ("", "if not exists ") };
    let mut sql =
        format!("create {replace}stream {guard}{}.{} on {kind} {on}", identifier(schema), identifier(&new.name));
    if new.append_only {
        sql.push_str(" append_only = true");
    }
    if new.show_initial_rows {
        sql.push_str(" show_initial_rows = true");
    }
    sql.push_str(" comment = 'made by Freshet'");
    sql
}

/// Lists the Streams of a schema, or of a database.
#[must_use]
pub fn show_streams(schema: Option<&str>, database: &str, limit: usize) -> String {
    match schema {
        Some(schema) => format!("show streams in schema {} limit {limit}", identifier(schema)),
        None => format!("show streams in database {} limit {limit}", identifier(database)),
    }
}

/// Lists the Stream of this name; the pattern's `_` and `%` may match others.
#[must_use]
pub fn show_stream(schema: &str, stream: &str) -> String {
    format!("show streams like {} in schema {}", literal(stream), identifier(schema))
}

/// The parts of a name as Snowflake prints it: parted by dots, in double quotes where it is not plain.
#[must_use]
pub fn name_parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut letters, mut quoted) = (text.chars().peekable(), false);
    while let Some(letter) = letters.next() {
        let part = parts.last_mut().expect("there is always a part");
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                part.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            _ => part.push(letter),
        }
    }
    parts
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

        let sql = table.seal_stream("\"PUBLIC\".\"S\"", &columns(), &["ID".into()]);

        assert_eq!(
            sql.replace(&plan_mark(&columns(), &["ID".into()]), "MARK"),
            "create transient table if not exists \
             \"FRESHET\".\"FRESHET_STG_SNC_01JD0000000000000000000000_000000000007\" as\n\
             select \"ID\", \"na\"\"me\", \"METADATA$ACTION\", \"METADATA$ISUPDATE\", \"METADATA$ROW_ID\", \
             'MARK' as \"FRESHET_PLAN\", \
             row_number() over (order by \"ID\", \"METADATA$ACTION\", \"METADATA$ROW_ID\") as \"FRESHET_ORDINAL\"\n\
             from \"PUBLIC\".\"S\""
        );
    }

    #[test]
    fn another_key_or_column_makes_another_mark() {
        let mark = |columns: &[Column], key: &str| plan_mark(columns, &[key.to_owned()]);
        let mut other = columns();
        other[1].source_type = "number(38,0)".into();

        let marks =
            [mark(&columns(), "ID"), mark(&columns(), "na\"me"), mark(&other, "ID"), mark(&columns()[..1], "ID")];

        assert_eq!(marks.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
        assert_eq!(marks[0], mark(&columns(), "ID"));
    }

    #[test]
    fn a_batch_is_read_from_an_ordinal_on_in_its_one_order() {
        let table = BatchTable::new(Stage::Stream, "FRESHET", SYNC, 7);

        let sql = table.read(&columns(), Stage::Stream, 40);

        assert!(sql.ends_with("where \"FRESHET_ORDINAL\" > 40\norder by \"FRESHET_ORDINAL\""), "{sql}");
        assert!(sql.starts_with("select \"ID\", \"na\"\"me\", \"METADATA$ACTION\", \"FRESHET_ORDINAL\"\n"), "{sql}");
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
    fn a_batch_of_an_earlier_model_is_put_in_the_order_of_the_key_as_it_is_now() {
        let table = BatchTable::new(Stage::Stream, "FRESHET", SYNC, 7);

        let sql = table.read_anew(&columns(), &["na\"me".into()], &["ID".into()], 40);

        assert_eq!(
            sql,
            "select \"ID\", null as \"na\"\"me\", \"METADATA$ACTION\", \"FRESHET_PLACE\" as \"FRESHET_ORDINAL\"\n\
             from (select \"ID\", \"METADATA$ACTION\", row_number() over (order by \"ID\", \"METADATA$ACTION\", \
             \"FRESHET_ORDINAL\") as \"FRESHET_PLACE\" \
             from \"FRESHET\".\"FRESHET_STG_SNC_01JD0000000000000000000000_000000000007\") as placed\n\
             where \"FRESHET_PLACE\" > 40\norder by \"FRESHET_PLACE\""
        );
    }

    #[test]
    fn tables_go_out_in_the_order_they_were_made_and_empty_ones_are_spent_once_old() {
        let table = |seq, rows, made_ms| FoundTable { seq, rows, made_ms: Some(made_ms) };
        let found = [table(9, 5, 70_000), table(3, 2, 90_000), table(7, 0, 10_000), table(8, 0, 60_000)];

        assert_eq!(oldest_with_rows(&found), Some(found[0]));
        assert_eq!(oldest_with_rows(&found[2..]), None);
        assert_eq!(spent(&found, 10, 100_000, 50), [7]);
        assert_eq!(spent(&found, 7, 100_000, 50), [0; 0]);
        assert_eq!(spent(&[FoundTable { made_ms: None, ..found[2] }], 10, 100_000, 50), [0; 0]);
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
        let new = NewStream {
            schema: None,
            name: "S".into(),
            on: freshet_core::connector::StreamBase { kind: StreamOn::View, schema: "P".into(), name: "ORDERS".into() },
            append_only: true,
            show_initial_rows: true,
            replace: false,
        };

        assert_eq!(
            create_stream("F", &new, "\"P\".\"ORDERS\""),
            "create stream if not exists \"F\".\"S\" on view \"P\".\"ORDERS\" append_only = true \
             show_initial_rows = true comment = 'made by Freshet'"
        );
        let anew = NewStream { append_only: false, show_initial_rows: false, replace: true, ..new };
        assert!(create_stream("F", &anew, "T").starts_with("create or replace stream \"F\".\"S\" on view T comment"));
        assert_eq!(has_data("\"F\".\"S\""), "select system$stream_has_data('\"F\".\"S\"')");
    }

    #[test]
    fn a_name_as_snowflake_prints_it_has_its_parts() {
        assert_eq!(name_parts("SHOP.PUBLIC.ORDERS"), ["SHOP", "PUBLIC", "ORDERS"]);
        assert_eq!(name_parts("SHOP.\"my.\"\"schema\".\"orders\""), ["SHOP", "my.\"schema", "orders"]);
    }
}
