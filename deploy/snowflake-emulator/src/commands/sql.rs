//! `sql`: statements from the command line, without HTTP.

use anyhow::{Result, anyhow};
use clap::Args;
use snowflake_emulator::auth::User;
use snowflake_emulator::results::ResultSet;
use snowflake_emulator::sql::names::Context;
use snowflake_emulator::statements::{self, Request, Start, State};

use super::{Place, print};

/// `sql` and its options.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    #[arg(long)]
    database: Option<String>,
    #[arg(long)]
    schema: Option<String>,
    /// One statement, or several with semicolons between.
    statement: String,
}

/// Runs the statements one after the other.
///
/// # Errors
/// The first statement's error.
pub async fn run(options: Options) -> Result<()> {
    let result = run_one(&options.place, options.database, options.schema, &options.statement).await?;
    print(&table(&result)?)
}

/// Runs statements and returns the last result.
///
/// # Errors
/// The first statement's error.
pub async fn run_one(
    place: &Place,
    database: Option<String>,
    schema: Option<String>,
    text: &str,
) -> Result<std::sync::Arc<ResultSet>> {
    let emulator = place.open().await?;
    let user = User {
        name: "ADMIN".into(),
        default_role: "ACCOUNTADMIN".into(),
        default_warehouse: Some("COMPUTE_WH".into()),
        default_database: None,
        default_schema: None,
        public_key_1: None,
        public_key_2: None,
    };
    let upper = |text: Option<String>| text.map(|text| text.to_uppercase());
    let pieces = snowflake_emulator::sql::parse::split(text)?.len();
    let request = Request {
        text: text.to_owned(),
        request_id: uuid::Uuid::new_v4(),
        count: Some(pieces),
        context: Context { database: upper(database), schema: upper(schema) },
        ..Request::default()
    };
    let submitted = statements::submit(&emulator, user, request, Start::default());
    match submitted.wait(std::time::Duration::from_secs(86_400)).await {
        State::Done(result) => match submitted
            .child_handles()
            .last()
            .and_then(|child| emulator.statements.get(*child, emulator.clock.now_ms()))
        {
            Some(child) => match child.now() {
                State::Done(last) => Ok(last),
                _ => Ok(result),
            },
            None => Ok(result),
        },
        State::Failed(error) => Err(anyhow!("{error}")),
        State::Running | State::TimedOut => Err(anyhow!("the statement did not end within a day")),
    }
}

/// Prints a result's first partition as a table.
fn table(result: &ResultSet) -> Result<String> {
    let Some(first) = result.partitions.first() else { return Ok(String::new()) };
    let body: serde_json::Value = serde_json::from_slice(&first.body)?;
    let header: Vec<String> = result.columns.iter().map(|column| column.name.clone()).collect();
    let mut rows = vec![header];
    for row in body["data"].as_array().into_iter().flatten() {
        rows.push(
            row.as_array().into_iter().flatten().map(|cell| cell.as_str().unwrap_or("NULL").to_owned()).collect(),
        );
    }
    let widths: Vec<usize> = (0..result.columns.len())
        .map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0).min(60))
        .collect();
    let mut lines: Vec<String> = rows
        .iter()
        .map(|row| {
            row.iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect::<Vec<_>>()
                .join(" | ")
                .trim_end()
                .to_owned()
        })
        .collect();
    lines.insert(1, widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join("-+-"));
    lines.push(format!("({} rows)", result.row_count));
    Ok(lines.join("\n"))
}
