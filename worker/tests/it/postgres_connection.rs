//! What a connection test says of each way a connection can fail.

use freshet_core::connector::{Registry, Step, StepState};
use freshet_core::error::Code;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::postgres::{Bench, open, pem, port, unique};

const STEPS: [&str; 6] = ["address", "tls", "login", "version", "rights", "read"];

/// Tries a connection; each step's state in order.
async fn check(settings: Value) -> Vec<Step> {
    let steps = open(settings).await.check().await;
    let names: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, STEPS, "{steps:?}");
    steps
}

/// The step that failed and its code; every step after it is skipped, and none before it.
async fn failure(settings: Value) -> (String, Code) {
    let steps = check(settings).await;
    let place = steps.iter().position(|step| step.state == StepState::Failed);
    let place = place.unwrap_or_else(|| panic!("nothing failed: {steps:?}"));
    let (before, after) = (&steps[..place], &steps[place + 1..]);
    assert!(before.iter().all(|step| matches!(step.state, StepState::Passed | StepState::Warning)), "{steps:?}");
    assert!(after.iter().all(|step| step.state == StepState::Skipped), "{steps:?}");
    assert!(steps[place].action.as_deref().is_some_and(|action| !action.is_empty()), "{steps:?}");
    (steps[place].name.clone(), steps[place].code.unwrap())
}

fn with(mut settings: Value, member: &str, value: impl Into<Value>) -> Value {
    settings[member] = value.into();
    settings
}

fn tls(mode: &str, ca: Option<&str>) -> Value {
    match ca {
        Some(file) => json!({"mode": mode, "ca": pem(file)}),
        None => json!({"mode": mode}),
    }
}

fn state<'a>(steps: &'a [Step], name: &str) -> &'a Step {
    steps.iter().find(|step| step.name == name).unwrap()
}

/// A login that can read one table and no more.
async fn reader(bench: &mut Bench) -> Value {
    let login = bench.login().await;
    bench.sql(&format!("create table orders (id int primary key); grant select on orders to {login}")).await;
    let settings = with(bench.settings(), "allow_superuser", false);
    with(with(settings, "user", login.as_str()), "password", login)
}

#[tokio::test]
async fn a_login_that_can_only_read_passes_each_step() {
    let mut bench = Bench::new().await;
    let settings = reader(&mut bench).await;

    let steps = check(settings).await;

    assert!(steps.iter().all(|step| step.state == StepState::Passed), "{steps:?}");
    assert!(state(&steps, "tls").detail.contains("TLSv1"), "{steps:?}");
    assert_eq!(state(&steps, "read").detail, "1 tables and views can be read");
}

#[tokio::test]
async fn each_way_to_fail_has_a_step_and_a_code() {
    let mut bench = Bench::new().await;
    let settings = reader(&mut bench).await;
    let stranger = bench.login().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let nothing = Bench::new().await;
    let superuser = with(bench.settings(), "allow_superuser", false);
    let cases = [
        ("address", Code::PostgresUnreachable, with(settings.clone(), "host", "nowhere.invalid")),
        ("address", Code::PostgresUnreachable, with(settings.clone(), "port", closed)),
        ("login", Code::PostgresLogin, with(settings.clone(), "password", "wrong")),
        ("login", Code::PostgresLogin, with(settings.clone(), "password", Value::Null)),
        ("login", Code::PostgresLogin, with(settings.clone(), "user", unique("nobody"))),
        ("login", Code::PostgresLogin, with(settings.clone(), "database", unique("nothing"))),
        ("rights", Code::PostgresSuperuser, superuser),
        ("read", Code::PostgresPrivilege, with(settings.clone(), "database", nothing.database.as_str())),
        (
            "read",
            Code::PostgresPrivilege,
            with(with(settings.clone(), "user", stranger.as_str()), "password", stranger.as_str()),
        ),
    ];

    for (step, code, settings) in cases {
        assert_eq!(failure(settings.clone()).await, (step.to_owned(), code), "{settings}");
    }
}

#[tokio::test]
async fn a_login_that_can_run_programs_is_refused_as_a_superuser_is() {
    let mut bench = Bench::new().await;
    let settings = reader(&mut bench).await;
    let login = settings["user"].as_str().unwrap().to_owned();
    bench.sql(&format!("grant pg_execute_server_program to {login}")).await;

    let refused = failure(settings.clone()).await;
    let allowed = check(with(settings, "allow_superuser", true)).await;

    assert_eq!(refused, ("rights".to_owned(), Code::PostgresSuperuser));
    assert_eq!(state(&allowed, "rights").state, StepState::Warning);
    assert!(state(&allowed, "rights").detail.contains("pg_execute_server_program"));
}

#[tokio::test]
async fn a_schema_without_rights_is_not_listed_and_its_table_is_refused() {
    let mut bench = Bench::new().await;
    let settings = reader(&mut bench).await;
    bench
        .sql("create schema hidden; create table hidden.secrets (id int primary key); create table bare (id int)")
        .await;
    let hidden = freshet_core::connector::ModelSpec::Table { schema: "hidden".into(), table: "secrets".into() };

    let mut source = open(settings).await;
    let listed = source.catalogue(None).await.unwrap();
    let in_schema = source.describe(&hidden).await.unwrap_err();
    let bare = source.describe(&crate::postgres::table("bare")).await;
    let bare = match bare {
        Ok(_) => source.preview(&crate::postgres::table("bare"), 1).await.unwrap_err(),
        Err(error) => error,
    };

    let names: Vec<_> = listed.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["orders"]);
    assert_eq!((in_schema.code, bare.code), (Code::PostgresPrivilege, Code::PostgresPrivilege));
}

#[tokio::test]
async fn each_tls_mode_does_what_libpq_says() {
    let bench = Bench::new().await;
    let at = |host: &str, tls: Value| with(with(bench.settings(), "host", host), "tls", tls);
    let encrypted = [
        tls("prefer", None),
        tls("require", None),
        // Not checked: there is no CA to check with in these modes.
        tls("require", Some("stranger-ca.pem")),
        tls("verify-ca", Some("ca.pem")),
        tls("verify-full", Some("ca.pem")),
    ];

    for mode in ["disable", "allow"] {
        let steps = check(with(at("127.0.0.1", tls(mode, None)), "allow_superuser", true)).await;
        assert_eq!(state(&steps, "tls").state, StepState::Warning, "{mode}: {steps:?}");
        assert_eq!(state(&steps, "login").state, StepState::Passed, "{mode}: {steps:?}");
    }
    for tls in encrypted {
        let steps = check(at("localhost", tls.clone())).await;
        assert!(state(&steps, "tls").detail.contains("encrypted with TLSv1"), "{tls}: {steps:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_or_not_the_hosts_is_refused() {
    let bench = Bench::new().await;
    // Another name of this machine, which is not in the certificate.
    let elsewhere = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let other_port = elsewhere.local_addr().unwrap().port();
    tokio::spawn(pass_on(elsewhere));
    let at = |tls: Value| with(bench.settings(), "tls", tls);
    let at_other = |tls: Value| with(with(at(tls), "host", "127.0.0.2"), "port", other_port);
    let cases = [
        (at(tls("verify-ca", Some("stranger-ca.pem"))), true),
        (at(tls("verify-full", Some("stranger-ca.pem"))), true),
        (at(tls("verify-ca", None)), true),
        (at(tls("verify-full", None)), true),
        (at_other(tls("verify-full", Some("ca.pem"))), true),
        (at_other(tls("verify-ca", Some("ca.pem"))), false),
        (at_other(tls("require", None)), false),
    ];

    for (settings, refused) in cases {
        if refused {
            assert_eq!(failure(settings.clone()).await, ("tls".to_owned(), Code::PostgresTls), "{settings}");
        } else {
            let steps = check(settings.clone()).await;
            assert_eq!(state(&steps, "tls").state, StepState::Passed, "{settings}: {steps:?}");
        }
    }
}

#[tokio::test]
async fn a_client_certificate_needs_its_own_key() {
    let bench = Bench::new().await;
    let client = |key: &str| {
        let tls = json!({
            "mode": "verify-full", "ca": pem("ca.pem"), "certificate": pem("client.crt"), "key": pem(key),
        });
        with(bench.settings(), "tls", tls)
    };

    let steps = check(client("client.key")).await;
    let with_another = failure(client("stranger.key")).await;

    assert_eq!(state(&steps, "tls").state, StepState::Passed, "{steps:?}");
    assert_eq!(with_another, ("tls".to_owned(), Code::PostgresTls));
}

/// Carries connections to the server.
async fn pass_on(listener: TcpListener) {
    while let Ok((mut inner, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut outer = TcpStream::connect(("127.0.0.1", port())).await?;
            tokio::io::copy_bidirectional(&mut inner, &mut outer).await
        });
    }
}

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Stands before the server and looks at how a client begins: with TLS or without.
async fn guard(encrypted: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port_of_guard = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut inner, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut first = [0; 8];
                inner.read_exact(&mut first).await?;
                match (encrypted, first == SSL_REQUEST) {
                    // Insists on TLS, as a `hostssl` line does.
                    (true, false) => inner.write_all(&refusal()).await?,
                    // Has no TLS.
                    (false, true) => {
                        inner.write_all(b"N").await?;
                        let mut outer = TcpStream::connect(("127.0.0.1", port())).await?;
                        tokio::io::copy_bidirectional(&mut inner, &mut outer).await?;
                    }
                    _ => {
                        let mut outer = TcpStream::connect(("127.0.0.1", port())).await?;
                        outer.write_all(&first).await?;
                        tokio::io::copy_bidirectional(&mut inner, &mut outer).await?;
                    }
                }
                std::io::Result::Ok(())
            });
        }
    });
    port_of_guard
}

/// The server's message for a client that no line of pg_hba.conf lets in.
fn refusal() -> Vec<u8> {
    let fields = b"SFATAL\0VFATAL\0C28000\0Mno pg_hba.conf entry for host, no encryption\0\0";
    let length = fields.len() as u32 + 4;
    [b"E".as_slice(), &length.to_be_bytes(), fields].concat()
}

#[tokio::test]
async fn a_server_that_insists_on_tls_gets_it_unless_it_is_disabled() {
    let bench = Bench::new().await;
    let port = guard(true).await;
    let at = |mode: &str| with(with(bench.settings(), "port", port), "tls", tls(mode, None));

    for mode in ["allow", "prefer", "require"] {
        let steps = check(at(mode)).await;
        assert_eq!(state(&steps, "tls").state, StepState::Passed, "{mode}: {steps:?}");
    }
    let disabled = check(at("disable")).await;
    assert_eq!(state(&disabled, "tls").state, StepState::Warning, "{disabled:?}");
    assert_eq!(state(&disabled, "login").code, Some(Code::PostgresLogin), "{disabled:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_it_must_be_encrypted() {
    let bench = Bench::new().await;
    let port = guard(false).await;
    let at = |mode: &str, ca| with(with(bench.settings(), "port", port), "tls", tls(mode, ca));

    for mode in ["disable", "allow", "prefer"] {
        let steps = check(at(mode, None)).await;
        assert_eq!(state(&steps, "tls").state, StepState::Warning, "{mode}: {steps:?}");
    }
    for (mode, ca) in [("require", None), ("verify-ca", Some("ca.pem")), ("verify-full", Some("ca.pem"))] {
        assert_eq!(failure(at(mode, ca)).await, ("tls".to_owned(), Code::PostgresTls), "{mode}");
    }
}

#[tokio::test]
async fn a_server_that_breaks_off_or_talks_of_something_else_is_unreachable() {
    let bench = Bench::new().await;
    for answer in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(answer).await;
            }
        });

        let found = failure(with(bench.settings(), "port", port)).await;

        assert_eq!(found, ("login".to_owned(), Code::PostgresUnreachable));
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_before_anything_is_saved() {
    let bench = Bench::new().await;
    let registry = freshet_worker::register(Registry::default());
    let kind = registry.find_source("postgres").unwrap();
    let good = bench.settings();
    let cases = [
        ("host", json!("")),
        ("host", json!("/var/run/postgresql")),
        ("host", json!("a\nb")),
        ("port", json!(0)),
        ("port", json!(65_536)),
        ("database", json!("")),
        ("user", json!("x".repeat(256))),
        ("tls", json!({"mode": "sometimes"})),
        ("tls", json!({"mode": "verify-ca", "ca": "not a certificate"})),
        ("tls", json!({"mode": "require", "certificate": pem("client.crt")})),
        ("unknown", json!(1)),
    ];

    for (member, value) in cases {
        let error = kind.validate(with(good.clone(), member, value.clone())).unwrap_err();
        assert_eq!(error.code, Code::Invalid, "{member}: {value}");
    }
    let full = kind.validate(good).unwrap();
    assert_eq!((full["port"].clone(), full["statement_timeout_s"].clone()), (port().into(), 0.into()));
}
