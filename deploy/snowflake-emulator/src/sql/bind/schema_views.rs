//! INFORMATION_SCHEMA: TABLES, COLUMNS, SCHEMATA, VIEWS, DATABASES.

use super::Binder;
use crate::sql::error::SqlError;
use crate::sql::names::{literal, printed};
use crate::sql::types::{Column, Type};

const CREATED: &str = "(o.created_ms::numeric * 0.001)::numeric(21,9)";

impl Binder<'_> {
    /// Returns the SQL of an INFORMATION_SCHEMA view, when the name is one.
    ///
    /// # Errors
    /// 002003 for a view that this emulator does not have.
    pub(super) fn schema_view(&self, parts: &[String]) -> Result<Option<(String, Vec<Column>)>, SqlError> {
        let (database, view) = match parts {
            [schema, view] if schema == "INFORMATION_SCHEMA" => (self.context.database.clone(), view),
            [database, schema, view] if schema == "INFORMATION_SCHEMA" => (Some(database.clone()), view),
            [view] if self.context.schema.as_deref() == Some("INFORMATION_SCHEMA") => {
                (self.context.database.clone(), view)
            }
            _ => return Ok(None),
        };
        let database = database.ok_or_else(|| {
            SqlError::new("090105", "22000", "Cannot perform SELECT. This session does not have a current database. Call 'USE DATABASE', or use a qualified name.")
        })?;
        let (columns, from) = match view.as_str() {
            "TABLES" => (
                tables(),
                "emulator.object o where o.kind in ('TABLE', 'VIEW') and o.session is null and o.database = ",
            ),
            "VIEWS" => (views(), "emulator.object o where o.kind = 'VIEW' and o.database = "),
            "COLUMNS" => (
                columns(),
                "emulator.column c join emulator.object o on o.id = c.object_id where o.session is null and o.kind in ('TABLE', 'VIEW') and o.database = ",
            ),
            "SCHEMATA" => (schemata(), "emulator.schema o where o.database = "),
            "DATABASES" => (databases(), "emulator.database o where o.name = "),
            _ => {
                return Err(SqlError::missing(
                    "Object",
                    format!("{}.INFORMATION_SCHEMA.{}", printed(&database), printed(view)),
                ));
            }
        };
        let list =
            columns.iter().map(|(column, sql)| format!("{sql} as \"{}\"", column.name)).collect::<Vec<_>>().join(", ");
        let sql = format!("(select {list} from {from}{})", literal(&database));
        Ok(Some((sql, columns.into_iter().map(|(column, _)| column).collect())))
    }
}

type Listed = Vec<(Column, String)>;

fn text(name: &str, sql: &str) -> (Column, String) {
    (Column::text(name), format!("({sql})::text collate \"C\""))
}

fn number(name: &str, sql: &str) -> (Column, String) {
    (Column::new(name, Type::Fixed { precision: 9, scale: 0 }), format!("({sql})::numeric"))
}

fn created(name: &str) -> (Column, String) {
    (Column::new(name, Type::TimestampLtz), CREATED.to_owned())
}

fn tables() -> Listed {
    vec![
        text("TABLE_CATALOG", "o.database"),
        text("TABLE_SCHEMA", "o.schema"),
        text("TABLE_NAME", "o.name"),
        text("TABLE_OWNER", "'ACCOUNTADMIN'"),
        text("TABLE_TYPE", "case when o.kind = 'VIEW' then 'VIEW' else 'BASE TABLE' end"),
        text("IS_TRANSIENT", "case when o.transient then 'YES' else 'NO' end"),
        number("ROW_COUNT", "case when o.kind = 'TABLE' then emulator.row_count(o.id) end"),
        number("BYTES", "case when o.kind = 'TABLE' then emulator.byte_count(o.id) end"),
        number("RETENTION_TIME", "o.retention_days"),
        created("CREATED"),
        created("LAST_ALTERED"),
        text("COMMENT", "nullif(o.comment, '')"),
    ]
}

fn views() -> Listed {
    vec![
        text("TABLE_CATALOG", "o.database"),
        text("TABLE_SCHEMA", "o.schema"),
        text("TABLE_NAME", "o.name"),
        text("TABLE_OWNER", "'ACCOUNTADMIN'"),
        text("VIEW_DEFINITION", "o.definition::jsonb ->> 'text'"),
        created("CREATED"),
        text("COMMENT", "nullif(o.comment, '')"),
    ]
}

fn columns() -> Listed {
    vec![
        text("TABLE_CATALOG", "o.database"),
        text("TABLE_SCHEMA", "o.schema"),
        text("TABLE_NAME", "o.name"),
        text("COLUMN_NAME", "c.name"),
        number("ORDINAL_POSITION", "c.ordinal"),
        text("COLUMN_DEFAULT", "c.default_sql"),
        text("IS_NULLABLE", "case when c.nullable then 'YES' else 'NO' end"),
        text("DATA_TYPE", "emulator.type_name(c.type)"),
        number("CHARACTER_MAXIMUM_LENGTH", "(c.type -> 'Text' ->> 'length')::bigint"),
        number("NUMERIC_PRECISION", "(c.type -> 'Fixed' ->> 'precision')::bigint"),
        number("NUMERIC_SCALE", "(c.type -> 'Fixed' ->> 'scale')::bigint"),
        number(
            "DATETIME_PRECISION",
            "case when c.type #>> '{}' like 'Time%' then 9 when c.type #>> '{}' = 'Date' then 0 end",
        ),
        text("COMMENT", "c.comment"),
    ]
}

fn schemata() -> Listed {
    vec![
        text("CATALOG_NAME", "o.database"),
        text("SCHEMA_NAME", "o.name"),
        text("SCHEMA_OWNER", "'ACCOUNTADMIN'"),
        created("CREATED"),
        text("COMMENT", "nullif(o.comment, '')"),
    ]
}

fn databases() -> Listed {
    vec![
        text("DATABASE_NAME", "o.name"),
        text("DATABASE_OWNER", "'ACCOUNTADMIN'"),
        created("CREATED"),
        text("COMMENT", "nullif(o.comment, '')"),
    ]
}
