//! What the Postgres tests share: a database of the test's own, and a sink that keeps what is sent as JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use freshet_core::connector::{
    BatchName, Change, ChangeMeta, Column, EncodePlan, Encoder, Envelope, Flow, KeyForm, ModelSpec, NumberForm,
    ReadMode, ReadPlan, ReadRequest, Registry, Schema, SealRequest, Sealed, Sink, Source,
};
use freshet_core::error::Result;
use freshet_core::testing::{EGRESS, make_source, surroundings, with_database};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// A source database of the test's own.
pub struct Bench {
    pub database: String,
    pub url: String,
    /// A superuser's connection to it, to prepare what is read.
    pub admin: PgConnection,
}

impl Bench {
    pub async fn new() -> Self {
        let database = make_source().await.unwrap();
        let url = with_database(&surroundings("FRESHET_TEST_DATABASE_URL"), &database);
        let admin = PgConnection::connect(&url).await.unwrap();
        Self { database, url, admin }
    }

    /// One with these statements run in it.
    pub async fn with(sql: &str) -> Self {
        let mut bench = Self::new().await;
        bench.sql(sql).await;
        bench
    }

    pub async fn sql(&mut self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.admin).await.unwrap();
    }

    /// A second connection of the superuser.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// A login that may do nothing yet; its password is its name. Logins belong to the whole server.
    pub async fn login(&mut self) -> String {
        let name = unique("reader");
        self.sql(&format!("create role {name} login password '{name}'")).await;
        name
    }

    /// Settings that work: the superuser, over TLS, by name.
    pub fn settings(&self) -> Value {
        json!({
            "host": "localhost", "port": port(), "database": self.database, "user": "postgres",
            "password": "postgres", "tls": {"mode": "require"}, "allow_superuser": true, "horizon_wait_s": 0,
        })
    }

    pub async fn source(&self) -> Box<dyn Source> {
        open(self.settings()).await
    }

    /// What a sync of this model would read, with the columns as they are now.
    pub async fn plan(&self, model: &ModelSpec, key: &[&str], mode: ReadMode) -> ReadPlan {
        let (schema, _) = self.source().await.describe(model).await.unwrap();
        read_plan(model, schema, key, mode)
    }

    /// Seals and reads a model in full.
    pub async fn sent(&self, model: &ModelSpec, key: &[&str]) -> Vec<Sent> {
        let mut source = self.source().await;
        let (schema, _) = source.describe(model).await.unwrap();
        let plan = read_plan(model, schema, key, ReadMode::Full);
        let mut sink = Keeper::new(&plan);
        let request = ReadRequest { name: BatchName::default(), plan, batch: json!({"kind": "full"}), from: None };
        source.read(&request, &mut sink).await.unwrap();
        sink.sent
    }
}

/// The server's port, from the address that `deploy/dev/up` exported.
pub fn port() -> u16 {
    let url = surroundings("FRESHET_TEST_DATABASE_URL");
    url.rsplit(':').next().unwrap().split('/').next().unwrap().parse().unwrap()
}

/// A test certificate or key, as text.
pub fn pem(file: &str) -> String {
    let path = PathBuf::from(surroundings("FRESHET_TEST_CERTIFICATES")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A name that nothing else has, and that needs no quotes.
pub fn unique(word: &str) -> String {
    let mut bytes = [0; 8];
    rand::fill(&mut bytes);
    format!("{word}_{:016x}", u64::from_le_bytes(bytes))
}

/// Opens the source as the pipeline does: through the registry.
pub async fn open(settings: Value) -> Box<dyn Source> {
    let registry = freshet_worker::register(Registry::default());
    let kind = registry.find_source("postgres").unwrap();
    kind.open(kind.validate(settings).unwrap(), &EGRESS).await.unwrap()
}

/// What the registry says of a model's text, without a connection.
pub fn validate(model: &ModelSpec) -> Result<()> {
    freshet_worker::register(Registry::default()).find_source("postgres").unwrap().validate_model(model)
}

pub fn table(name: &str) -> ModelSpec {
    ModelSpec::Table { schema: "public".into(), table: name.into() }
}

pub fn select(sql: &str) -> ModelSpec {
    ModelSpec::Sql { sql: sql.into() }
}

fn read_plan(model: &ModelSpec, schema: Schema, key: &[&str], mode: ReadMode) -> ReadPlan {
    let key = key.iter().map(|name| (*name).to_owned()).collect();
    ReadPlan { model: model.clone(), columns: schema.columns, key, mode }
}

pub fn seal_request(plan: &ReadPlan, position: Option<Value>, carry: Option<Value>) -> SealRequest {
    SealRequest { name: BatchName::default(), plan: plan.clone(), position, carry }
}

pub fn read_request(plan: &ReadPlan, sealed: &Sealed, from: Option<Value>) -> ReadRequest {
    ReadRequest { name: BatchName::default(), plan: plan.clone(), batch: sealed.batch.clone(), from }
}

/// An encoder of the format `json`.
pub fn encoder(columns: &[Column], key: &[String], envelope: Envelope, numbers: NumberForm) -> Box<dyn Encoder> {
    let schema = Schema { columns: columns.to_vec() };
    let key = key.iter().map(|name| schema.position(name).unwrap()).collect();
    let source = json!({"connector": "freshet", "name": "orders out"}).to_string();
    let plan = EncodePlan { schema, key, envelope, key_form: KeyForm::Object, numbers, source };
    freshet_worker::register(Registry::default()).find_format("json").unwrap().encoder(plan).unwrap()
}

/// One change as it would be sent; the texts are exactly the message's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub op: &'static str,
    pub key: Option<String>,
    pub row: String,
    pub debezium: String,
}

impl Sent {
    /// A member of the row, as the JSON text it was sent as.
    pub fn member(&self, name: &str) -> String {
        let members: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(&self.row).unwrap_or_else(|error| panic!("{error}: {}", self.row));
        members.get(name).unwrap_or_else(|| panic!("no member {name}: {}", self.row)).get().to_owned()
    }
}

/// Keeps what is sent.
pub struct Keeper {
    row: Box<dyn Encoder>,
    debezium: Box<dyn Encoder>,
    pub sent: Vec<Sent>,
    /// Each token, and how many changes had been sent before it.
    pub tokens: Vec<(Value, usize)>,
    flow: Flow,
}

impl Keeper {
    pub fn new(plan: &ReadPlan) -> Self {
        let encoder = |envelope| encoder(&plan.columns, &plan.key, envelope, NumberForm::Number);
        Self {
            row: encoder(Envelope::Row),
            debezium: encoder(Envelope::Debezium),
            sent: Vec::new(),
            tokens: Vec::new(),
            flow: Flow::More,
        }
    }

    /// One that asks for a token after every change.
    pub fn always_full(plan: &ReadPlan) -> Self {
        Self { flow: Flow::Full, ..Self::new(plan) }
    }

    pub fn rows(&self) -> Vec<&str> {
        self.sent.iter().map(|sent| sent.row.as_str()).collect()
    }
}

#[async_trait]
impl Sink for Keeper {
    fn push(&mut self, change: Change<'_>) -> Result<Flow> {
        let ordinal = self.sent.len() as i64 + 1;
        let meta = ChangeMeta { ts_ms: 1_700_000_000_000, batch_seq: 1, ordinal };
        let (mut key, mut row, mut debezium) = (Vec::new(), Vec::new(), Vec::new());
        let keyed = self.row.key(change.row().unwrap(), &mut key).is_ok();
        self.row.value(&change, meta, &mut row).unwrap();
        self.debezium.value(&change, meta, &mut debezium).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        self.sent.push(Sent {
            op: change.op.letter(),
            key: keyed.then(|| text(key)),
            row: text(row),
            debezium: text(debezium),
        });
        Ok(self.flow)
    }

    async fn flush(&mut self, token: Value) -> Result<()> {
        self.tokens.push((token, self.sent.len()));
        Ok(())
    }
}
