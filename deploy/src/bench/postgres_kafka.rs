//! `freshet bench postgres-kafka`: the same rows of a table by five ways, round after round.

use freshet_core::connector::ModelSpec;
use freshet_core::id::RequestId;
use serde_json::json;

use super::field::{self, Options, Place, SAMPLE_ROWS, execute, with_database};
use super::grounds::Grounds;

/// Measures, and prints the report.
pub async fn run(options: Options) -> anyhow::Result<()> {
    field::refuse_debug_build()?;
    let grounds = Grounds::find()?;
    let place = place(&grounds, options.rows).await?;
    field::run(&grounds, place, &options).await
}

/// A table of so many rows, moved in full.
pub async fn place(grounds: &Grounds, rows: u64) -> anyhow::Result<Place> {
    let server = grounds.get("FRESHET_TEST_DATABASE_URL")?;
    let database = format!("bench_source_{}", RequestId::new());
    execute(server, &format!("create database {database}")).await?;
    let url = with_database(server, &database);
    eprintln!("making {rows} rows");
    execute(&url, &format!("set bench.rows = {rows};{}", include_str!("../../bench/orders.sql"))).await?;
    execute(&url, "vacuum (analyze, freeze) orders").await?;

    let address: sqlx::postgres::PgConnectOptions = server.parse()?;
    let settings = json!({
        "host": address.get_host(), "port": address.get_port(), "database": database, "user": "postgres",
        "password": "postgres", "tls": {"mode": "disable"}, "allow_superuser": true,
    });
    Ok(Place {
        benchmark: "postgres-kafka",
        connection: ("postgres", settings),
        model: ModelSpec::Table { schema: "public".into(), table: "orders".into() },
        sample: ModelSpec::Sql { sql: format!("select * from public.orders where id <= {SAMPLE_ROWS}") },
        mode: json!({"kind": "full"}),
        again: Box::new(|| Ok(())),
        key: "id",
        guarantees: &["exactly_once", "effectively_once"],
        exporters: vec![
            ("python_tuned", "python_tuned.py", vec![url.clone()]),
            ("python_exporter", "python_exporter.py", vec![url]),
        ],
        settings: Vec::new(),
        databases: vec![database],
        server: None,
    })
}
