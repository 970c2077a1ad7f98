//! What a user can name and Freshet does not dial: each field with a host, each form that an inner address can take, names
//! that change their addresses, redirects, and a cluster that sends its clients inside.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use freshet_core::clock::Clock;
use freshet_core::connector::{Guarantee, LaneSpec, Registry, Step, StepState};
use freshet_core::egress::{Egress, Lookup};
use freshet_core::error::{Code, Error};
use freshet_core::settings::{Reach, Settings};
use freshet_worker::sources;
use freshet_worker::sources::snowflake::client::{Client, ClientSettings, Context, Pace, http_client};
use freshet_worker::sources::snowflake::sign_in::SignIn;
use freshet_worker::sources::snowflake::sign_in::oauth::OAuthApp;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use crate::kafka::{broker, broker_alone, create_topic, forward, misadvertised, plain, plan, unique};
use crate::postgres::{Bench, pem, port};

/// The installation's default: what is inside is not dialled.
fn closed() -> Arc<Egress> {
    Arc::new(Egress::new(Reach::Private, "").unwrap())
}

/// One address of loopback is open, the rest is not.
const OPEN: &str = "127.0.0.9";

fn half_open() -> Egress {
    Egress::new(Reach::Private, OPEN).unwrap()
}

/// Each form of an address that leads to this machine or to a cloud's metadata.
const INNER: [&str; 10] = [
    "127.0.0.1",
    "0.0.0.0",
    "::1",
    "::ffff:127.0.0.1",
    "169.254.169.254",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "localhost",
];

/// Listens on an address, and counts who comes; each is hung up on.
struct Ear {
    port: u16,
    heard: Arc<AtomicUsize>,
}

impl Ear {
    /// On both loopback addresses, at one port.
    async fn new() -> Self {
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ear = Self { port: first.local_addr().unwrap().port(), heard: Arc::default() };
        ear.listen(first, b"");
        ear.listen(TcpListener::bind(("::1", ear.port)).await.unwrap(), b"");
        ear
    }

    /// On one address; `answer` is what each who comes is told.
    async fn at(address: impl tokio::net::ToSocketAddrs, answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let ear = Self { port: listener.local_addr().unwrap().port(), heard: Arc::default() };
        ear.listen(listener, answer);
        ear
    }

    fn listen(&self, listener: TcpListener, answer: &'static [u8]) {
        let heard = Arc::clone(&self.heard);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                heard.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    // What is left unread would reset the connection before the answer is read.
                    let _ = stream.read(&mut [0; 4_096]).await;
                    let _ = stream.write_all(answer).await;
                });
            }
        });
    }

    fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }
}

/// A port of this machine where nothing listens.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// Answers every name with these addresses.
struct Answers(Vec<IpAddr>);

#[async_trait]
impl Lookup for Answers {
    async fn lookup(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
        Ok(self.0.clone())
    }
}

/// Every name is at the open address, whatever the system's resolver says a moment later.
fn rebinding() -> Arc<Egress> {
    Arc::new(half_open().with_lookup(Answers(vec![OPEN.parse().unwrap()])))
}

async fn check_postgres(settings: Value, egress: &Arc<Egress>) -> Vec<Step> {
    let registry = freshet_worker::register(Registry::default());
    registry.find_source("postgres").unwrap().open(settings, egress).await.unwrap().check().await
}

async fn check_kafka(settings: Value, egress: &Arc<Egress>) -> Vec<Step> {
    let registry = freshet_worker::register(Registry::default());
    registry.find_destination("kafka").unwrap().open(settings, egress).await.unwrap().check().await
}

/// The connection test, and the exchange of a consent's code, at a host that the installation lists.
async fn check_snowflake(url: &str, egress: &Arc<Egress>) -> (Vec<Step>, Error) {
    let listed = url::Url::parse(url).unwrap();
    let listed = format!("{}:{}", listed.host_str().unwrap(), listed.port().unwrap());
    let settings = Settings::with(&[("snowflake_hosts", &listed)]).unwrap();
    let registry = sources::configure(Registry::default(), &settings).unwrap();
    let kind = registry.find_source("snowflake").unwrap();
    let open = async |sign_in: Value| {
        let settings = json!({"account": "a", "host": url, "user": "u", "database": "d", "sign_in": sign_in});
        kind.open(kind.validate(settings).unwrap(), egress).await.unwrap()
    };
    let steps = open(json!({"kind": "access_token", "token": "t"})).await.check().await;
    let oauth = json!({"kind": "oauth", "client_id": "c", "client_secret": "s", "refresh_token": "r"});
    let (code, verifier) = ("code".parse().unwrap(), "verifier".parse().unwrap());
    let refused = open(oauth).await.finish_consent("http://localhost/callback", &code, &verifier).await;
    (steps, refused.map(|_| "a token").unwrap_err())
}

/// The first step says that the address is not dialled, and the rest is skipped. Returns its words.
fn refusal(steps: &[Step]) -> (Option<Code>, String) {
    assert_eq!((steps[0].name.as_str(), steps[0].state), ("address", StepState::Failed), "{steps:?}");
    assert!(steps[1..].iter().all(|step| step.state == StepState::Skipped), "{steps:?}");
    (steps[0].code, steps[0].detail.clone())
}

fn postgres_at(host: &str, port: u16) -> Value {
    let tls = json!({"mode": "prefer"});
    json!({"host": host, "port": port, "database": "d", "user": "u", "password": "p", "tls": tls})
}

fn kafka_at(server: &str) -> Value {
    json!({"bootstrap_servers": server, "security": {"protocol": "plaintext"}})
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[tokio::test]
async fn a_postgres_host_inside_is_not_dialled_in_whatever_clothes() {
    let (ear, nobody, egress) = (Ear::new().await, closed_port().await, closed());

    for host in INNER {
        let open = refusal(&check_postgres(postgres_at(host, ear.port), &egress).await);
        let shut = refusal(&check_postgres(postgres_at(host, nobody), &egress).await);

        assert_eq!(open.0, Some(Code::EgressBlocked), "{host}: {open:?}");
        assert_eq!(open, shut, "an open port and a closed one must look alike");
    }
    assert_eq!(ear.heard(), 0);
}

#[tokio::test]
async fn a_sockets_path_is_no_host() {
    let directory = std::env::temp_dir().join(unique("freshet-egress"));
    std::fs::create_dir(&directory).unwrap();
    let listener = UnixListener::bind(directory.join(".s.PGSQL.5432")).unwrap();
    let path = directory.to_str().unwrap();
    let registry = freshet_worker::register(Registry::default());

    let refused = registry.find_source("postgres").unwrap().validate(postgres_at(path, 5_432)).unwrap_err();
    let unchecked = check_postgres(postgres_at(path, 5_432), &closed()).await;
    let as_server = registry.find_destination("kafka").unwrap().validate(kafka_at(&format!("{path}:1"))).unwrap_err();
    let heard = tokio::time::timeout(std::time::Duration::from_millis(200), listener.accept()).await;

    assert_eq!(refused.fields[0].pointer, "/settings/host");
    assert_eq!(as_server.fields[0].pointer, "/settings/bootstrap_servers");
    assert_eq!(unchecked[0].state, StepState::Failed, "{unchecked:?}");
    assert!(heard.is_err(), "somebody came by the socket");
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_bootstrap_server_inside_is_not_dialled_in_whatever_clothes() {
    let (ear, nobody, egress) = (Ear::new().await, closed_port().await, closed());

    for host in INNER.map(bracketed) {
        let open = refusal(&check_kafka(kafka_at(&format!("{host}:{}", ear.port)), &egress).await);
        let shut = refusal(&check_kafka(kafka_at(&format!("{host}:{nobody}")), &egress).await);

        assert_eq!(open.0, Some(Code::EgressBlocked), "{host}: {open:?}");
        assert_eq!(open, shut, "an open port and a closed one must look alike");
    }
    assert_eq!(ear.heard(), 0);
}

#[tokio::test]
async fn a_snowflake_host_inside_is_not_dialled_in_whatever_clothes() {
    let (ear, nobody, egress) = (Ear::new().await, closed_port().await, closed());

    for host in INNER.map(bracketed) {
        let at = async |port: u16| {
            let (steps, consent) = check_snowflake(&format!("https://{host}:{port}"), &egress).await;
            (refusal(&steps), consent.code, consent.message)
        };
        let (open, shut) = (at(ear.port).await, at(nobody).await);

        assert_eq!((open.0.0, open.1), (Some(Code::EgressBlocked), Code::EgressBlocked), "{host}: {open:?}");
        assert_eq!(open, shut, "an open port and a closed one must look alike");
    }
    assert_eq!(ear.heard(), 0);
}

#[tokio::test]
async fn a_snowflake_request_past_the_connection_test_is_judged_too() {
    let (ear, egress) = (Ear::new().await, closed());
    let client = |host: &str| snowflake_client(&format!("http://{host}:{}", ear.port), &egress);

    let literal = client("127.0.0.1").err().unwrap();
    let named = client("localhost").unwrap().knock().await.unwrap_err();

    assert_eq!((literal.code, named.code), (Code::EgressBlocked, Code::EgressBlocked), "{literal:?}, {named:?}");
    assert_eq!(ear.heard(), 0);
}

fn snowflake_client(url: &str, egress: &Arc<Egress>) -> Result<Client, Error> {
    Client::new(ClientSettings {
        base_url: url.to_owned(),
        sign_in: SignIn::Token(SecretString::from("token")),
        context: Context::default(),
        statement_timeout_s: 60,
        credits_per_hour: 1.0,
        egress: Arc::clone(egress),
        pace: Pace { tries: 1, ..Pace::default() },
        clock: Clock::system(),
    })
}

#[tokio::test]
async fn private_networks_are_refused_where_strangers_are_served() {
    let public = Arc::new(Egress::new(Reach::Public, "").unwrap());

    for host in ["10.0.0.1", "172.16.5.4", "192.168.0.1", "100.64.0.1"] {
        let postgres = refusal(&check_postgres(postgres_at(host, 5_432), &public).await);
        let kafka = refusal(&check_kafka(kafka_at(&format!("{host}:9092")), &public).await);

        assert_eq!((postgres.0, kafka.0), (Some(Code::EgressBlocked), Some(Code::EgressBlocked)), "{host}");
    }
}

#[tokio::test]
async fn a_name_with_an_inner_address_among_outer_ones_is_refused() {
    let ear = Ear::new().await;
    let both = ["192.168.0.1", "127.0.0.1"].map(|address| address.parse().unwrap());
    let egress = Egress::new(Reach::Private, "").unwrap().with_lookup(Answers(both.to_vec()));

    let told = refusal(&check_postgres(postgres_at("two-faced.example", ear.port), &Arc::new(egress)).await);

    assert_eq!(told.0, Some(Code::EgressBlocked));
    assert!(told.1.contains("two-faced.example") && !told.1.contains("127.0.0.1"), "{told:?}");
    assert_eq!(ear.heard(), 0);
}

#[tokio::test]
async fn a_postgres_name_that_changes_its_address_is_dialled_where_it_was_judged() {
    let bench = Bench::with("create table orders (id int primary key)").await;
    let server = forward(OPEN, format!("127.0.0.1:{}", port())).await.parse::<SocketAddr>().unwrap();
    // Where the system's resolver would send the driver if the driver asked it for `localhost`.
    let ear = Ear::at(("127.0.0.1", server.port()), b"").await;
    let at = |host: &str, tls: Value| {
        let mut settings = bench.settings();
        (settings["host"], settings["port"], settings["tls"]) = (host.into(), server.port().into(), tls);
        settings
    };

    for mode in ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] {
        let steps = check_postgres(at("localhost", json!({"mode": mode, "ca": pem("ca.pem")})), &rebinding()).await;
        assert!(steps.iter().all(|step| step.state != StepState::Failed), "{mode}: {steps:?}");
    }
    // TLS has the name still: the same server under a name that its certificate does not hold.
    let verified = json!({"mode": "verify-full", "ca": pem("ca.pem")});
    let steps = check_postgres(at("other.example", verified), &rebinding()).await;

    assert_eq!((steps[1].name.as_str(), steps[1].code), ("tls", Some(Code::PostgresTls)), "{steps:?}");
    assert_eq!(ear.heard(), 0);
}

#[tokio::test]
async fn a_bootstrap_name_that_changes_its_address_is_not_dialled() {
    let ear = Ear::new().await;

    // Judged, it is at an open address; librdkafka asks the system's resolver, and that says 127.0.0.1 and ::1.
    let told = refusal(&check_kafka(kafka_at(&format!("localhost:{}", ear.port)), &rebinding()).await);

    assert_eq!(told.0, Some(Code::EgressBlocked), "{told:?}");
    assert_eq!(ear.heard(), 0);
}

#[tokio::test]
async fn a_snowflake_name_that_changes_its_address_is_dialled_where_it_was_judged() {
    let judged = Ear::at((OPEN, 0), b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
    let ear = Ear::at(("127.0.0.1", judged.port), b"").await;
    let egress = rebinding();

    let client = snowflake_client(&format!("http://localhost:{}", judged.port), &egress).unwrap();
    client.knock().await.unwrap();

    assert_eq!((judged.heard(), ear.heard()), (1, 0));
}

#[tokio::test]
async fn a_redirect_inside_is_not_followed() {
    let ear = Ear::new().await;
    let location = format!("HTTP/1.1 307 T\r\nLocation: http://127.0.0.1:{}/\r\nContent-Length: 0\r\n\r\n", ear.port);
    let server = Ear::at((OPEN, 0), location.leak().as_bytes()).await;
    let (url, egress) = (format!("http://{OPEN}:{}", server.port), Arc::new(half_open()));
    let app = OAuthApp { base_url: url.clone(), client_id: "c".into(), client_secret: "s".to_owned().into() };
    let http = http_client(&egress, &url).unwrap();

    snowflake_client(&url, &egress).unwrap().cancel("statement").await.unwrap_err();
    app.renew(&http, Clock::system().now(), &SecretString::from("refresh")).await.map(|_| "a token").unwrap_err();

    assert_eq!((server.heard(), ear.heard()), (2, 0));
}

/// The port that the `PROXIED` listener sends its clients to.
fn advertised_port() -> u16 {
    misadvertised().rsplit(':').next().unwrap().parse::<u16>().unwrap() + 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_advertises_an_address_inside_is_named_and_not_dialled() {
    let _broker = broker_alone().await;
    let bootstrap = forward(OPEN, misadvertised()).await;
    let ear = Ear::at(("127.0.0.1", advertised_port()), b"").await;
    let egress = Arc::new(half_open());
    let registry = freshet_worker::register(Registry::default());
    let settings = registry.find_destination("kafka").unwrap().validate(kafka_at(&bootstrap)).unwrap();
    let mut cluster = registry.find_destination("kafka").unwrap().open(settings.clone(), &egress).await.unwrap();
    let plan = plan(&unique("orders"), Guarantee::ExactlyOnce);

    let steps = cluster.check().await;
    let prepared = cluster.prepare(&plan).await.unwrap_err();
    let looked = cluster.look(&plan).await.unwrap_err();
    // Past the look: a broker may advertise another address a moment later.
    // Opening the lane may find it, or the first thing that it does.
    let fenced = match cluster.lane(&plan).await {
        Ok(mut lane) => lane.fence().await.unwrap_err(),
        Err(found) => found,
    };

    let step = steps.iter().find(|step| step.state == StepState::Failed).unwrap();
    assert_eq!((step.name.as_str(), step.code), ("brokers", Some(Code::KafkaAdvertised)), "{steps:?}");
    for error in [&prepared, &looked, &fenced] {
        assert_eq!(error.code, Code::KafkaAdvertised, "{error:?}");
    }
    for told in [&step.detail, &prepared.message, &looked.message, &fenced.message] {
        assert!(told.contains("broker 1 is advertised") && !told.contains("127.0.0.1"), "{told}");
    }
    assert_eq!(ear.heard(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_does_not_dial_what_the_look_before_it_did_not_see() {
    let _broker = broker().await;
    let topic = unique("orders");
    create_topic(&topic, 1, &[]).await;
    // The cluster is honest, and advertises the address at which the tests' policy lets it be; this lane's does not.
    let bootstrap = forward(OPEN, plain()).await;
    let egress = Arc::new(half_open());
    let registry = freshet_worker::register(Registry::default());
    let mut settings = kafka_at(&bootstrap);
    settings["prefix"] = unique("p").into();
    let kind = registry.find_destination("kafka").unwrap();
    let mut cluster = kind.open(kind.validate(settings).unwrap(), &egress).await.unwrap();

    for guarantee in [Guarantee::ExactlyOnce, Guarantee::EffectivelyOnce] {
        let mut plan = plan(&topic, guarantee);
        plan.lane = LaneSpec { progress_partition: Some(0), ..plan.lane };
        let mut lane = cluster.lane(&plan).await.unwrap();
        let fenced = lane.fence().await.unwrap_err();

        assert_eq!(fenced.code, Code::KafkaAdvertised, "{guarantee:?}: {fenced:?}");
    }
}
