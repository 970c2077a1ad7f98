//! What `deploy/foreign` has other people's software look at: our client's requests, tokens and cells.
//!
//! | command | does |
//! |---|---|
//! | `jwt KEY_FILE ACCOUNT USER` | prints the token that the client signs with a key |
//! | `walk SETTINGS HOSTS SCHEMA TABLE STREAM` | uses every call of the source on a table and on a Stream |
//! | `rows SETTINGS HOSTS SQL` | prints each row of a SELECT as the JSON that goes into a message |
//!
//! SETTINGS is a connection's settings as JSON, HOSTS the hosts that are allowed besides Snowflake's own.

use std::sync::Arc;

use async_trait::async_trait;
use freshet_core::clock::Clock;
use freshet_core::connector::{
    BatchName, Change, ChangeMeta, Column, DuplicateKeys, EncodePlan, Encoder, Envelope, Flow, FormatKind, KeyForm,
    ModelSpec, NumberForm, ReadMode, ReadPlan, ReadRequest, Registry, Schema, SealRequest, Sink, Source, StepState,
};
use freshet_core::egress::Egress;
use freshet_core::error::{Error, Result};
use freshet_core::settings::{Reach, Settings};
use freshet_worker::formats::json;
use freshet_worker::sources::{
    self,
    snowflake::sign_in::key_pair::{KeyPair, Signer},
};
use secrecy::ExposeSecret;
use serde_json::Value;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["jwt", key, account, user] => {
            let key = KeyPair::parse(&std::fs::read_to_string(key)?, None, "/key")?;
            println!("{}", Signer::new(account, user, vec![key]).token(&Clock::system())?.expose_secret());
        }
        ["walk", settings, hosts, schema, table, stream] => {
            let table = ModelSpec::Table { schema: (*schema).into(), table: (*table).into() };
            let stream = ModelSpec::Stream { schema: (*schema).into(), stream: (*stream).into() };
            walk(open(settings, hosts).await?.as_mut(), table, stream).await?;
        }
        ["rows", settings, hosts, sql] => {
            let mut source = open(settings, hosts).await?;
            let sql = ModelSpec::Sql { sql: (*sql).into() };
            let plan = plan(source.as_mut(), sql, ReadMode::Full).await?;
            let mut sink = Printer::of(&plan.columns);
            carry(source.as_mut(), &plan, 1, &mut sink).await?;
        }
        _ => return Err("see the head of this file".into()),
    }
    Ok(())
}

async fn open(settings: &str, hosts: &str) -> Result<Box<dyn Source>, Failure> {
    let allowed = Settings::with(&[("snowflake_hosts", hosts)])?;
    let registry = sources::configure(Registry::default(), &allowed)?;
    let kind = registry.find_source("snowflake")?;
    let egress = Arc::new(Egress::new(Reach::Private, "127.0.0.0/8,::1")?);
    Ok(kind.open(kind.validate(serde_json::from_str(settings)?)?, &egress).await?)
}

async fn plan(source: &mut dyn Source, model: ModelSpec, mode: ReadMode) -> Result<ReadPlan> {
    let (schema, key) = source.describe(&model).await?;
    let key = if key.is_empty() { vec!["ID".into()] } else { key };
    Ok(ReadPlan { model, columns: schema.columns, key, mode })
}

async fn walk(source: &mut dyn Source, table: ModelSpec, stream: ModelSpec) -> Result<(), Failure> {
    for step in source.check().await {
        if step.state == StepState::Failed {
            return Err(format!("{step:?}").into());
        }
    }
    source.catalogue(None).await?;
    source.preview(&table, 10).await?;
    source.preview(&stream, 10).await?;
    source.key_check(&table, &["ID".to_owned()]).await?;
    let full = plan(source, table.clone(), ReadMode::Full).await?;
    let incremental = ReadMode::Incremental { cursor: "ID".into() };
    let incremental = plan(source, table.clone(), incremental).await?;
    let diff = plan(source, table, ReadMode::Diff).await?;
    let changes = plan(source, stream, ReadMode::Changes { duplicate_keys: DuplicateKeys::DeadLetter }).await?;
    for (seq, plan) in [full, incremental, diff, changes].iter().enumerate() {
        let mut sink = Printer::of(&plan.columns);
        carry(source, plan, seq as i64 + 1, &mut sink).await?;
    }
    Ok(())
}

/// Looks ahead, seals, looks ahead of the next, reads and releases one batch.
async fn carry(source: &mut dyn Source, plan: &ReadPlan, seq: i64, sink: &mut Printer) -> Result<()> {
    let name =
        BatchName { workspace: "ws".into(), sync: format!("probe_{}", std::process::id()), run: "run".into(), seq };
    let mut request = SealRequest { name: name.clone(), plan: plan.clone(), position: None, carry: None };
    look(source, &request).await?;
    let sealed = source.seal(&request).await?;
    request.carry.clone_from(&sealed.carry);
    request.name.seq += 1;
    look(source, &request).await?;
    if sealed.empty {
        return Ok(());
    }
    let request = ReadRequest { name: name.clone(), plan: plan.clone(), batch: sealed.batch.clone(), from: None };
    source.read(&request, sink).await?;
    source.release(&name, &sealed.batch).await
}

/// Counts and looks at what the next batch would hold; what is shown is as good as what is sent, and not printed twice.
async fn look(source: &mut dyn Source, request: &SealRequest) -> Result<()> {
    source.count_ahead(request).await?;
    source.look_ahead(request, 10, &mut Nothing).await
}

struct Nothing;

#[async_trait]
impl Sink for Nothing {
    fn push(&mut self, _: Change<'_>) -> Result<Flow> {
        Ok(Flow::More)
    }

    async fn flush(&mut self, _: Value) -> Result<()> {
        Ok(())
    }
}

/// Prints rows as JSON.
struct Printer {
    encoder: Box<dyn Encoder>,
    out: Vec<u8>,
}

impl Printer {
    fn of(columns: &[Column]) -> Self {
        let encoder = json::Kind.encoder(EncodePlan {
            schema: Schema { columns: columns.to_vec() },
            key: vec![0],
            key_form: KeyForm::Object,
            numbers: NumberForm::Number,
            envelope: Envelope::Row,
            source: "{}".into(),
        });
        Self { encoder: encoder.unwrap_or_else(|error| panic!("{error}")), out: Vec::new() }
    }
}

#[async_trait]
impl Sink for Printer {
    fn push(&mut self, change: Change<'_>) -> Result<Flow> {
        self.out.clear();
        let meta = ChangeMeta { ts_ms: 0, batch_seq: 1, ordinal: 1 };
        self.encoder.value(&change, meta, &mut self.out).map_err(|error| Error::new(error.code, error.reason))?;
        println!("{}", String::from_utf8_lossy(&self.out));
        Ok(Flow::More)
    }

    async fn flush(&mut self, _: Value) -> Result<()> {
        Ok(())
    }
}
