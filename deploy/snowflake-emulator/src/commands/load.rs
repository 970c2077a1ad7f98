//! `load`: a steady load of inserts, updates and deletes.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use clap::Args;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use snowflake_emulator::sql::bind::Surroundings;
use snowflake_emulator::sql::names::Context;
use snowflake_emulator::sql::parse;
use snowflake_emulator::sql::sessions::Session;

use super::{Place, print};

/// `load` and its options.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    #[arg(long)]
    database: String,
    #[arg(long, default_value = "PUBLIC")]
    schema: String,
    /// The table; made as (ID NUMBER, NAME VARCHAR, AMOUNT NUMBER(12,2), CHANGED_AT TIMESTAMP_NTZ) when missing.
    #[arg(long, default_value = "ORDERS")]
    table: String,
    /// Row changes per second.
    #[arg(long, default_value_t = 100)]
    rate: u64,
    /// Seconds; none: until it is stopped.
    #[arg(long)]
    seconds: Option<u64>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Rows of one statement, at most.
const ROWS_PER_STATEMENT_MAX: u64 = 500;

/// Changes rows until the time is over: 60 % inserts, 30 % updates, 10 % deletes.
///
/// # Errors
/// The first statement that fails.
pub async fn run(options: Options) -> Result<()> {
    if options.rate == 0 {
        bail!("--rate must be at least 1");
    }
    let emulator = options.place.open().await?;
    let around = Surroundings {
        account: emulator.account.clone(),
        user: "LOAD".into(),
        role: "ACCOUNTADMIN".into(),
        zone: "UTC".into(),
        context: Context {
            database: Some(options.database.to_uppercase()),
            schema: Some(options.schema.to_uppercase()),
        },
        ..Surroundings::default()
    };
    let connection = emulator.pool.acquire().await?;
    let mut session = Session::new(connection, emulator.clock.clone(), around, Default::default());
    let table = &options.table;
    run_one(&mut session, &format!("create table if not exists {table} (id number primary key, name varchar, amount number(12,2), changed_at timestamp_ntz)")).await?;
    let mut dice = StdRng::seed_from_u64(options.seed);
    let start = Instant::now();
    let (mut next_id, mut changed) = (first_free(&mut session, table).await?, 0_u64);
    while options.seconds.is_none_or(|seconds| start.elapsed() < Duration::from_secs(seconds)) {
        let due = (start.elapsed().as_secs_f64() * options.rate as f64) as u64;
        if due <= changed {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let count = (due - changed).min(ROWS_PER_STATEMENT_MAX);
        let sql = statement(&mut dice, table, &mut next_id, count);
        run_one(&mut session, &sql).await?;
        changed += count;
    }
    session.close().await;
    print(&format!("{changed} row changes in {:.1} s", start.elapsed().as_secs_f64()))
}

fn statement(dice: &mut StdRng, table: &str, next_id: &mut u64, count: u64) -> String {
    let ids = |dice: &mut StdRng, upper: u64| {
        (0..count).map(|_| dice.random_range(0..upper).to_string()).collect::<Vec<_>>().join(", ")
    };
    match dice.random_range(0..10) {
        0..6 => {
            let rows: Vec<String> = (0..count)
                .map(|offset| {
                    let amount = dice.random_range(0..10_000_000_u64);
                    format!(
                        "({}, 'customer {}', {}.{:02}, sysdate())",
                        *next_id + offset,
                        dice.random_range(0..5000),
                        amount / 100,
                        amount % 100
                    )
                })
                .collect();
            *next_id += count;
            format!("insert into {table} values {}", rows.join(", "))
        }
        6..9 if *next_id > 0 => {
            format!(
                "update {table} set amount = amount + 1, changed_at = sysdate() where id in ({})",
                ids(dice, *next_id)
            )
        }
        _ => format!("delete from {table} where id in ({})", ids(dice, (*next_id).max(1))),
    }
}

async fn first_free(session: &mut Session, table: &str) -> Result<u64> {
    let result = run_one(session, &format!("select coalesce(max(id), -1) + 1 from {table}")).await?;
    let body: serde_json::Value = serde_json::from_slice(&result.partitions[0].body)?;
    Ok(body["data"][0][0].as_str().and_then(|text| text.parse().ok()).unwrap_or(0))
}

async fn run_one(session: &mut Session, sql: &str) -> Result<snowflake_emulator::results::ResultSet> {
    let pieces = parse::split(sql)?;
    let piece = pieces.first().ok_or_else(|| anyhow!("no statement"))?;
    Ok(session.run(piece).await?)
}
