//! The statements of mode `diff`: a snapshot, and what differs between two of them.
//!
//! A snapshot's columns are `C0`, `C1` …, in the plan's order; a difference's are `B0` … for the row as it was and `A0` …
//! for the row as it is, so that no name of a model is in the way of one of ours.

use freshet_core::connector::{Column, Kind, ReadPlan};

use super::{BatchTable, ORDINAL, identifier, literal, relation};

/// The column of a difference that says what happened: `c`, `u` or `d`.
pub const OP: &str = "FRESHET_OP";

/// The model's rows at the moment, in a statement that takes no snapshot.
const NOW: &str = "\"FRESHET_NOW\"";

/// Takes a snapshot of a model. Harmless when repeated: what is there stays as it is.
///
/// Transient, as every table of Freshet's: it outlives sessions and crashes, and is spared the seven days of fail-safe.
#[must_use]
pub fn take_snapshot(snapshot: &BatchTable, plan: &ReadPlan) -> String {
    format!("create transient table if not exists {} as\n{}", snapshot.quoted(), rows(plan))
}

/// A model's rows as a snapshot has them.
fn rows(plan: &ReadPlan) -> String {
    let columns = plan.columns.iter().enumerate();
    let columns: Vec<_> =
        columns.map(|(place, column)| format!("{} as \"C{place}\"", identifier(&column.name))).collect();
    format!("select {}\nfrom {}", columns.join(", "), relation(&plan.model))
}

/// A statement over a snapshot that is not taken: the model's rows at the moment, under this name.
fn at_once(plan: &ReadPlan, statement: &str) -> String {
    format!("with {NOW} as (\n{}\n)\n{statement}", rows(plan))
}

/// Counts the rows of a snapshot with NULL in the key, and the keys that occur more than once.
#[must_use]
pub fn check_keys(snapshot: &BatchTable, plan: &ReadPlan) -> String {
    check_keys_of(&snapshot.quoted(), plan)
}

/// The same of the model's rows at the moment.
#[must_use]
pub fn check_keys_now(plan: &ReadPlan) -> String {
    at_once(plan, &check_keys_of(NOW, plan))
}

fn check_keys_of(snapshot: &str, plan: &ReadPlan) -> String {
    let nulls: Vec<_> = key(plan).map(|(place, _)| format!("\"C{place}\" is null")).collect();
    let exact: Vec<_> = key(plan).flat_map(|(place, column)| exact(&format!("\"C{place}\""), column)).collect();
    let (nulls, exact) = (nulls.join(" or "), exact.join(", "));
    format!(
        "select (select count(*) from {snapshot} where {nulls}) as nulls,\n\
         (select count(*) from (select count(*) as times from {snapshot} group by {exact}) as keys where times > 1) \
         as repeated"
    )
}

/// Takes the difference of a snapshot from the one before it, or from nothing: then every row is created. Harmless when
/// repeated. The order is by key, and whatever it was, the ordinals keep it.
#[must_use]
pub fn take_difference(
    difference: &BatchTable,
    plan: &ReadPlan,
    snapshot: &BatchTable,
    last: Option<&BatchTable>,
) -> String {
    let difference = difference.quoted();
    format!("create transient table if not exists {difference} as\n{}", differing(plan, &snapshot.quoted(), last))
}

/// The first changes from the last snapshot to the model's rows at the moment, as [`read`] gives them.
#[must_use]
pub fn look(plan: &ReadPlan, last: Option<&BatchTable>, limit: usize) -> String {
    let ordinal = identifier(ORDINAL);
    at_once(plan, &format!("{}\norder by {ordinal} limit {limit}", differing(plan, NOW, last)))
}

/// How many changes there are from the last snapshot to the model's rows at the moment, by what happened.
#[must_use]
pub fn count_now(plan: &ReadPlan, last: Option<&BatchTable>) -> String {
    let (op, changes) = (identifier(OP), differing(plan, NOW, last));
    at_once(plan, &format!("select {op}, count(*) as times from (\n{changes}\n) as changes group by {op}"))
}

/// The rows of a difference.
fn differing(plan: &ReadPlan, snapshot: &str, last: Option<&BatchTable>) -> String {
    let pairs = |place: usize, column: &Column| {
        let of = |image: &str| exact(&format!("{image}.\"C{place}\""), column);
        of("o").into_iter().zip(of("n")).collect::<Vec<_>>()
    };
    let same: Vec<_> = key(plan).flat_map(|(p, c)| pairs(p, c)).map(|(old, new)| format!("{old} = {new}")).collect();
    let order: Vec<_> = key(plan).map(|(p, _)| format!("coalesce(n.\"C{p}\", o.\"C{p}\")")).collect();
    // Keys are never NULL: check_keys refused them.
    let missing = |image: &str| key(plan).take(1).map(|(p, _)| format!("{image}.\"C{p}\" is null")).collect::<String>();
    let changed = plan.columns.iter().enumerate().filter(|(_, column)| !plan.key.contains(&column.name));
    let changed = changed.flat_map(|(p, c)| pairs(p, c)).map(|(old, new)| format!("{old} is distinct from {new}"));
    let wanted: Vec<_> = [missing("o"), missing("n")].into_iter().chain(changed).collect();
    let all = |image: &str, letter: char| {
        let columns = (0..plan.columns.len()).map(|place| format!("{image}.\"C{place}\" as \"{letter}{place}\""));
        columns.collect::<Vec<_>>().join(", ")
    };
    let last = match last {
        Some(last) => last.quoted(),
        None => format!("(select * from {snapshot} where 1 = 0)"),
    };
    format!(
        "select {}, {}, case when {} then 'c' when {} then 'd' else 'u' end as {}, \
         row_number() over (order by {}) as {}\n\
         from {last} as o full outer join {} as n on {}\nwhere {}",
        all("o", 'B'),
        all("n", 'A'),
        missing("o"),
        missing("n"),
        identifier(OP),
        order.join(", "),
        identifier(ORDINAL),
        snapshot,
        same.join(" and "),
        wanted.join(" or "),
    )
}

/// Changes after an ordinal, in order: the row as it was, the row as it is, what happened, the ordinal.
#[must_use]
pub fn read(difference: &BatchTable, width: usize, after: i64) -> String {
    let images = ['B', 'A'].into_iter().flat_map(|letter| (0..width).map(move |place| format!("\"{letter}{place}\"")));
    let columns: Vec<_> = images.chain([identifier(OP), identifier(ORDINAL)]).collect();
    let ordinal = identifier(ORDINAL);
    format!(
        "select {}\nfrom {}\nwhere {ordinal} > {after}\norder by {ordinal}",
        columns.join(", "),
        difference.quoted()
    )
}

/// Looks for one table; the pattern's `_` may match others.
#[must_use]
pub fn show_table(table: &BatchTable) -> String {
    format!("show tables like {} in schema {}", literal(&table.name), identifier(&table.schema))
}

/// The columns of the key, with their places.
fn key(plan: &ReadPlan) -> impl Iterator<Item = (usize, &Column)> {
    plan.key.iter().filter_map(|name| plan.columns.iter().enumerate().find(|(_, column)| column.name == *name))
}

/// Whether two values of a column can be compared exactly.
#[must_use]
pub fn is_comparable(column: &Column) -> bool {
    let beginnings = ["map", "vector", "geography", "geometry"];
    !beginnings.iter().any(|beginning| column.source_type.starts_with(beginning))
}

/// What of a value decides its message: two values are the same when all of it is equal.
///
/// Equality alone is too kind. A collation takes letters for each other; an instant is the same in every zone; `0` equals
/// `-0` as a float; documents are compared by value, and what is sent is their text. NaN equals itself in Snowflake.
fn exact(value: &str, column: &Column) -> Vec<String> {
    match column.kind {
        Kind::Text => vec![format!("collate({value}, '')")],
        Kind::Json => vec![format!("to_json({value}::variant)")],
        // The wall clock, which differs where the zones do.
        Kind::TimestampTz => vec![value.to_owned(), format!("{value}::timestamp_ntz")],
        Kind::Float => vec![value.to_owned(), format!("to_varchar({value})")],
        Kind::Decimal if column.source_type.starts_with("decfloat") => {
            vec![value.to_owned(), format!("to_varchar({value})")]
        }
        Kind::Bool
        | Kind::Int
        | Kind::Decimal
        | Kind::Bytes
        | Kind::Date
        | Kind::Time
        | Kind::Timestamp
        | Kind::Interval => vec![value.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use freshet_core::connector::{ModelSpec, ReadMode};

    use super::super::Stage;
    use super::*;

    fn plan() -> ReadPlan {
        let column = |name: &str, kind, source_type: &str| Column {
            name: name.into(),
            kind,
            source_type: source_type.into(),
            nullable: true,
        };
        ReadPlan {
            model: ModelSpec::Table { schema: "PUBLIC".into(), table: "ORDERS".into() },
            columns: vec![column("na\"me", Kind::Text, "text"), column("ID", Kind::Int, "number(9,0)")],
            key: vec!["ID".into()],
            mode: ReadMode::Diff,
        }
    }

    fn table(stage: Stage, seq: i64) -> BatchTable {
        BatchTable::marked(stage, "F", "snc_1", seq, "M")
    }

    #[test]
    fn a_difference_joins_two_snapshots_by_key_and_keeps_both_images() {
        let (last, snapshot) = (table(Stage::Snapshot, 1), table(Stage::Snapshot, 2));

        let sql = take_difference(&table(Stage::Difference, 2), &plan(), &snapshot, Some(&last));

        assert_eq!(
            sql,
            "create transient table if not exists \"F\".\"FRESHET_DIFF_SNC_1_000000000002_M\" as\n\
             select o.\"C0\" as \"B0\", o.\"C1\" as \"B1\", n.\"C0\" as \"A0\", n.\"C1\" as \"A1\", \
             case when o.\"C1\" is null then 'c' when n.\"C1\" is null then 'd' else 'u' end as \"FRESHET_OP\", \
             row_number() over (order by coalesce(n.\"C1\", o.\"C1\")) as \"FRESHET_ORDINAL\"\n\
             from \"F\".\"FRESHET_SNAP_SNC_1_000000000001_M\" as o \
             full outer join \"F\".\"FRESHET_SNAP_SNC_1_000000000002_M\" as n on o.\"C1\" = n.\"C1\"\n\
             where o.\"C1\" is null or n.\"C1\" is null or collate(o.\"C0\", '') is distinct from collate(n.\"C0\", '')"
        );
    }

    #[test]
    fn a_first_difference_has_nothing_before_it() {
        let snapshot = table(Stage::Snapshot, 1);

        let sql = take_difference(&table(Stage::Difference, 1), &plan(), &snapshot, None);

        assert!(
            sql.contains("from (select * from \"F\".\"FRESHET_SNAP_SNC_1_000000000001_M\" where 1 = 0) as o"),
            "{sql}"
        );
        assert!(take_snapshot(&snapshot, &plan()).contains("select \"na\"\"me\" as \"C0\", \"ID\" as \"C1\"\nfrom"));
    }

    #[test]
    fn what_equality_would_hide_is_compared_too() {
        let of = |kind, source_type: &str| {
            exact("x", &Column { name: "X".into(), kind, source_type: source_type.into(), nullable: true }).join(", ")
        };

        assert_eq!(of(Kind::TimestampTz, "timestamp_tz(9)"), "x, x::timestamp_ntz");
        assert_eq!(of(Kind::Json, "variant"), "to_json(x::variant)");
        assert_eq!(of(Kind::Float, "float"), "x, to_varchar(x)");
        assert_eq!(of(Kind::Decimal, "number(38,10)"), "x");
    }
}
