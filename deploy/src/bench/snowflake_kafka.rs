//! `freshet bench snowflake-kafka`: a Stream's changes, from the partitions of the emulator's SQL API to Kafka, beside a bare producer and an
//! exporter written in Python.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use freshet_core::connector::ModelSpec;
use freshet_core::id::RequestId;
use serde_json::json;

use super::field::{self, Options, Place, SAMPLE_ROWS, Server, execute, with_database};
use super::grounds::Grounds;

/// A Stream that has every row to tell.
const STREAM: &str = "create or replace stream ORDERS_STREAM on table ORDERS show_initial_rows = true";

/// Rows that one statement makes.
const PIECE: usize = 250_000;

/// Measures, and prints the report.
pub async fn run(options: Options) -> anyhow::Result<()> {
    field::refuse_debug_build()?;
    let grounds = Grounds::find()?;
    let place = place(&grounds, options.rows).await?;
    field::run(&grounds, place, &options).await
}

async fn place(grounds: &Grounds, rows: u64) -> anyhow::Result<Place> {
    let server = grounds.get("FRESHET_TEST_DATABASE_URL")?;
    let database = format!("bench_snowflake_{}", RequestId::new());
    execute(server, &format!("create database {database}")).await?;
    let emulator = Emulator { program: program()?, database_url: with_database(server, &database) };
    let (process, url) = emulator.serve()?;
    emulator.command(&["create-database", "SHOP"])?;
    emulator.command(&["create-user", "LOADER"])?;
    let token = emulator.command(&["create-token", "LOADER"])?.trim().to_owned();
    eprintln!("making {rows} rows");
    emulator.sql("create schema FRESHET")?;
    emulator.sql(include_str!("../../bench/orders.snowflake.sql"))?;
    for first in (1..=rows).step_by(PIECE) {
        let count = (rows + 1 - first).min(PIECE as u64);
        let statement = include_str!("../../bench/orders_rows.snowflake.sql");
        emulator.sql(&statement.replace("FIRST", &first.to_string()).replace("ROWS)", &format!("{count})")))?;
    }
    emulator.sql(STREAM)?;

    let settings = json!({
        "account": "emulator-account", "host": url, "user": "LOADER", "warehouse": "COMPUTE_WH", "database": "SHOP",
        "sign_in": {"kind": "access_token", "token": token},
    });
    Ok(Place {
        benchmark: "snowflake-kafka",
        connection: ("snowflake", settings),
        model: ModelSpec::Stream { schema: "PUBLIC".into(), stream: "ORDERS_STREAM".into() },
        mode: json!({"kind": "changes"}),
        again: Box::new(move || emulator.sql(STREAM).map(|_| ())),
        sample: ModelSpec::Sql { sql: format!("select * from PUBLIC.ORDERS where ID <= {SAMPLE_ROWS}") },
        key: "ID",
        guarantees: &["exactly_once"],
        exporters: vec![("python_exporter", "snowflake_exporter.py", vec![url.clone(), token])],
        settings: vec![("snowflake_hosts", url.trim_start_matches("http://").to_owned())],
        databases: vec![database],
        server: Some(process),
    })
}

/// The emulator's program, and the database it keeps everything in.
struct Emulator {
    program: PathBuf,
    database_url: String,
}

fn program() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("snowflake-emulator");
    ensure!(path.exists(), "{} is missing; run: cargo build --release -p snowflake-emulator", path.display());
    Ok(path)
}

impl Emulator {
    fn serve(&self) -> anyhow::Result<(Server, String)> {
        let mut command = Command::new(&self.program);
        command.args(["serve", "--database-url", &self.database_url]).env("RUST_LOG", "error").stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let mut url = String::new();
        let output = process.stdout.take().context("the emulator's output")?;
        BufReader::new(output).read_line(&mut url)?;
        Ok((Server(process), url.trim().to_owned()))
    }

    fn sql(&self, statements: &str) -> anyhow::Result<String> {
        self.command(&["sql", "--database", "SHOP", "--schema", "PUBLIC", "--", statements])
    }

    fn command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let (command, rest) = arguments.split_first().context("a command")?;
        let mut program = Command::new(&self.program);
        program.args([command, "--database-url", &self.database_url]).args(rest).env("RUST_LOG", "error");
        let done = program.stderr(Stdio::inherit()).output()?;
        ensure!(done.status.success(), "snowflake-emulator {command} ended with {}", done.status);
        Ok(String::from_utf8(done.stdout)?)
    }
}
