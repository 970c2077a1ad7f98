//! Where Snowflake is: statements on it, and syncs of it to a topic of their own.

use freshet_core::clock::Clock;
use freshet_core::connector::{ModelSpec, Registry};
use freshet_core::endpoint::{Connection, Destination, ops as endpoint};
use freshet_core::id::{RequestId, SyncId};
use freshet_core::operation::{self, Question};
use freshet_core::run::Failure;
use freshet_core::settings::Settings;
use freshet_core::testing::{Bench, EGRESS, surroundings};
use freshet_core::{model, sync};
use freshet_worker::sources;
use freshet_worker::sources::snowflake::client::{Client, ClientSettings, Context, Pace, Statement};
use freshet_worker::sources::snowflake::sign_in::SignIn;
use freshet_worker::sources::snowflake::sign_in::key_pair::{KeyPair, Signer};
use freshet_worker::sources::snowflake::sql::identifier;
use serde_json::{Value, json};

use crate::shop::Shop;

/// An account, and a schema in it.
pub struct Account {
    /// The settings of a connection to it; the work schema is `schema`.
    settings: Value,
    /// Hosts besides Snowflake's own: where the emulator listens.
    hosts: String,
    /// Where the tables are, as SHOW writes it.
    pub schema: String,
    client: Client,
}

impl Account {
    /// An account as a connection's settings tell of it, with a new schema.
    pub async fn open(settings: Value, hosts: &str) -> Self {
        let schema = format!("FRESHET_LIVE_{}", RequestId::new()).to_uppercase().replace('-', "_");
        let account = Self { client: client(&settings), settings, hosts: hosts.to_owned(), schema };
        account.sql(&format!("create schema {}", identifier(&account.schema))).await;
        account
    }

    /// Removes the schema.
    pub async fn close(self) {
        self.sql(&format!("drop schema {}", identifier(&self.schema))).await;
    }

    /// A table of the schema, in quotes.
    pub fn table(&self, name: &str) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(name))
    }

    /// Runs one statement, as someone else would.
    pub async fn sql(&self, statement: &str) {
        self.client.run(&Statement::small(statement).as_text()).await.unwrap();
    }

    /// The rows of a query, in the texts of Snowflake's answer.
    pub async fn rows(&self, query: &str) -> Vec<Vec<Option<String>>> {
        let texts = self.client.texts(&Statement::small(query), 10_000).await.unwrap();
        assert!(!texts.truncated, "{query}");
        texts.rows
    }

    /// A table of the schema as a model.
    pub fn model(&self, table: &str) -> ModelSpec {
        ModelSpec::Table { schema: self.schema.clone(), table: table.into() }
    }

    /// A Stream of the schema as a model.
    pub fn stream(&self, stream: &str) -> ModelSpec {
        ModelSpec::Stream { schema: self.schema.clone(), stream: stream.into() }
    }

    /// An active sync to a topic of its own.
    pub async fn sync_of(&self, spec: ModelSpec, key: &[&str], config: Value) -> Shop {
        let mut connection = self.settings.clone();
        connection["work_schema"] = format!("\"{}\"", self.schema).into();
        sync_of(connection, &self.hosts, spec, key, config).await
    }
}

/// A client that signs in as a connection with these settings does.
fn client(settings: &Value) -> Client {
    let text = |name: &str| settings[name].as_str().map(str::to_owned);
    let (account, user) = (text("account").unwrap(), text("user").unwrap());
    let sign_in = match &settings["sign_in"]["private_key"] {
        Value::String(pem) => {
            let key = KeyPair::parse(pem, settings["sign_in"]["passphrase"].as_str(), "").unwrap();
            SignIn::KeyPair(Signer::new(&account, &user, vec![key]))
        }
        _ => SignIn::Token(settings["sign_in"]["token"].as_str().unwrap().into()),
    };
    let stored = |name: &str| {
        let name = text(name)?;
        let quoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
        Some(quoted.map_or_else(|| name.to_uppercase(), str::to_owned))
    };
    Client::new(ClientSettings {
        base_url: text("host").unwrap_or_else(|| format!("https://{account}.snowflakecomputing.com")),
        sign_in,
        context: Context { role: stored("role"), warehouse: stored("warehouse"), database: stored("database") },
        statement_timeout_s: 600,
        credits_per_hour: 1.0,
        pace: Pace::default(),
        egress: EGRESS.clone(),
        clock: Clock::system(),
    })
    .unwrap()
}

/// An active sync of a connection with these settings, to a topic of its own.
pub async fn sync_of(connection: Value, hosts: &str, spec: ModelSpec, key: &[&str], config: Value) -> Shop {
    let registry = freshet_worker::register(Registry::default());
    let settings = Settings::with(&[("snowflake_hosts", hosts)]).unwrap();
    let bench = Bench::new(sources::configure(registry, &settings).unwrap()).await;
    let (app, caller) = (&bench.app, &bench.caller);
    let connection = endpoint::create::<Connection>(app, caller, "snowflake", "shop", connection).await.unwrap();
    let key: Vec<_> = key.iter().map(|name| (*name).to_owned()).collect();
    let model = model::ops::create(app, caller, connection.id, "orders", &spec, &key).await.unwrap();
    let kafka = json!({"bootstrap_servers": surroundings("FRESHET_TEST_KAFKA"), "security": {"protocol": "plaintext"}});
    let destination = endpoint::create::<Destination>(app, caller, "kafka", "cluster", kafka).await.unwrap();
    let topic = format!("test.{}", RequestId::new());
    let mut config = config;
    config["topic"] = json!({"name": topic, "create": {"partitions": 3}});
    let new = sync::ops::NewSync {
        name: "orders out".into(),
        model: model.id,
        destination: destination.id,
        config: serde_json::from_value(config).unwrap(),
    };
    let made: SyncId = sync::ops::create(app, caller, new).await.unwrap().id;
    let environment = [
        ("FRESHET_DATABASE_URL", app.settings.database_url.expose()),
        ("FRESHET_MASTER_KEYS", app.settings.master_keys.expose()),
        ("FRESHET_EGRESS_ALLOW", &app.settings.egress_allow),
        ("FRESHET_LEASE_S", "2"),
        ("FRESHET_RETRY_BASE_S", "0.5"),
        ("FRESHET_CHUNK_ROWS_MAX", "100"),
        ("FRESHET_SNOWFLAKE_HOSTS", hosts),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let shop = Shop { bench, source: String::new(), sync: made, topic, environment };
    shop.slow_counts().await;
    let worker = shop.worker();
    answered(&shop, Question::DescribeModel { model: model.id }).await.unwrap();
    drop(worker);
    sync::ops::activate(&shop.bench.app, &shop.bench.caller, made).await.unwrap();
    shop
}

/// Asks a question of whichever worker runs.
pub async fn answered(shop: &Shop, question: Question) -> Result<Value, Failure> {
    let (app, caller) = (&shop.bench.app, &shop.bench.caller);
    let asked = operation::ops::ask(app, caller, question).await.unwrap();
    crate::shop::until("the question is answered", async || {
        let found = operation::ops::get(app, caller, asked.id).await.unwrap();
        match found.error {
            Some(error) => Some(Err(error)),
            None => found.result.map(Ok),
        }
    })
    .await
}
