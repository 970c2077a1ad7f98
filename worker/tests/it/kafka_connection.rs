//! What a connection test says of each way a connection can fail.

use std::time::{Duration, Instant};

use freshet_core::connector::{Step, StepState};
use freshet_core::error::Code;
use serde_json::{Value, json};

use crate::kafka::{broker, environment, first, forward, misadvertised, open, pem, plain, settings, unique};

fn at(servers: &str, security: Value) -> Value {
    json!({"bootstrap_servers": servers, "security": security, "prefix": unique("p")})
}

fn sasl(protocol: &str, mechanism: &str, password: &str) -> Value {
    json!({"protocol": protocol, "mechanism": mechanism, "username": "admin", "password": password})
}

fn with_ca(mut security: Value) -> Value {
    security["ca"] = pem("ca.pem").into();
    security
}

fn client_certificate(name: &str) -> Value {
    with_ca(json!({"protocol": "tls", "certificate": pem(&format!("{name}.crt")), "key": pem(&format!("{name}.key"))}))
}

/// The steps that did not pass, with their codes.
fn failures(steps: &[Step]) -> Vec<(&str, Option<Code>)> {
    let failed = steps.iter().filter(|step| step.state == StepState::Failed);
    failed.map(|step| (step.name.as_str(), step.code)).collect()
}

#[tokio::test]
async fn each_way_to_connect_works() {
    let _broker = broker().await;
    let sasl_plain = environment("FRESHET_TEST_KAFKA_SASL");
    let sasl_tls = environment("FRESHET_TEST_KAFKA_SASL_SSL");
    let cases = [
        (plain(), json!({"protocol": "plaintext"})),
        (environment("FRESHET_TEST_KAFKA_TLS"), with_ca(json!({"protocol": "tls"}))),
        (environment("FRESHET_TEST_KAFKA_MTLS"), client_certificate("client")),
        (sasl_plain.clone(), sasl("sasl_plaintext", "PLAIN", "admin-secret")),
        (sasl_plain, sasl("sasl_plaintext", "SCRAM-SHA-256", "admin-secret")),
        (sasl_tls.clone(), with_ca(sasl("sasl_tls", "PLAIN", "admin-secret"))),
        (sasl_tls, with_ca(sasl("sasl_tls", "SCRAM-SHA-512", "admin-secret"))),
    ];
    for (servers, security) in cases {
        let steps = open(at(&servers, security.clone())).await.check().await;

        let names: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["address", "tls", "login", "brokers", "progress_topic"]);
        // The certificate's and nobody's name have no right to a topic yet; that is another test.
        let login: Vec<_> = failures(&steps).into_iter().filter(|(name, _)| *name != "progress_topic").collect();
        assert_eq!(login, [], "{servers}: {steps:?}");
    }
}

#[tokio::test]
async fn each_way_to_fail_has_a_step_and_a_code() {
    let _broker = broker().await;
    let tls = environment("FRESHET_TEST_KAFKA_TLS");
    let mtls = environment("FRESHET_TEST_KAFKA_MTLS");
    let sasl_plain = environment("FRESHET_TEST_KAFKA_SASL");
    let sasl_tls = environment("FRESHET_TEST_KAFKA_SASL_SSL");
    // The same broker at an address that its certificate does not hold.
    let other_name = forward("127.0.0.2", first(&tls)).await;
    let stranger = json!({"protocol": "tls", "ca": pem("stranger-ca.pem")});
    let broken = json!({"protocol": "tls", "ca": "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"});
    let plaintext = json!({"protocol": "plaintext"});
    let cases = [
        ("closed port", "127.0.0.1:9".to_owned(), plaintext.clone(), "address", Code::KafkaUnreachable),
        ("no such name", "kafka.invalid:9092".to_owned(), plaintext.clone(), "address", Code::KafkaUnreachable),
        ("advertised elsewhere", misadvertised(), plaintext.clone(), "brokers", Code::KafkaUnreachable),
        ("plaintext to a TLS port", tls.clone(), plaintext.clone(), "tls", Code::KafkaTls),
        ("TLS to a plaintext port", plain(), with_ca(json!({"protocol": "tls"})), "tls", Code::KafkaTls),
        ("a stranger's CA", tls.clone(), stranger, "tls", Code::KafkaTls),
        ("the system's CAs", tls.clone(), json!({"protocol": "tls"}), "tls", Code::KafkaTls),
        ("a CA that is none", tls, broken, "tls", Code::KafkaTls),
        ("another host name", other_name, with_ca(json!({"protocol": "tls"})), "tls", Code::KafkaTls),
        ("no client certificate", mtls.clone(), with_ca(json!({"protocol": "tls"})), "tls", Code::KafkaTls),
        ("an expired client certificate", mtls.clone(), client_certificate("expired"), "tls", Code::KafkaTls),
        ("a stranger's client certificate", mtls, client_certificate("stranger"), "tls", Code::KafkaTls),
        ("no login to a SASL port", sasl_plain.clone(), plaintext, "login", Code::KafkaLogin),
        ("a wrong password", sasl_plain.clone(), sasl("sasl_plaintext", "PLAIN", "wrong"), "login", Code::KafkaLogin),
        (
            "a wrong password by SCRAM",
            sasl_tls.clone(),
            with_ca(sasl("sasl_tls", "SCRAM-SHA-512", "wrong")),
            "login",
            Code::KafkaLogin,
        ),
        (
            "login to a plaintext port",
            plain(),
            sasl("sasl_plaintext", "PLAIN", "admin-secret"),
            "login",
            Code::KafkaLogin,
        ),
    ];
    for (name, servers, security, step, code) in cases {
        let since = Instant::now();
        let steps = open(at(&servers, security)).await.check().await;

        assert_eq!(failures(&steps), [(step, Some(code))], "{name}: {steps:?}");
        assert!(since.elapsed() < Duration::from_secs(30), "{name} took {:?}", since.elapsed());
        let after = steps.iter().skip_while(|step| step.state != StepState::Failed).skip(1);
        assert!(after.into_iter().all(|step| step.state == StepState::Skipped), "{name}: {steps:?}");
        assert!(!format!("{steps:?}").contains("admin-secret"));
    }
}

#[tokio::test]
async fn the_lane_names_the_same_failures() {
    let _broker = broker().await;
    let cases = [
        (
            plain().replace(plain().rsplit(':').next().unwrap(), "9"),
            json!({"protocol": "plaintext"}),
            Code::KafkaUnreachable,
        ),
        (
            environment("FRESHET_TEST_KAFKA_TLS"),
            json!({"protocol": "tls", "ca": pem("stranger-ca.pem")}),
            Code::KafkaTls,
        ),
        (environment("FRESHET_TEST_KAFKA_SASL"), sasl("sasl_plaintext", "PLAIN", "wrong"), Code::KafkaLogin),
    ];
    for (servers, security, code) in cases {
        let plan = crate::kafka::plan("orders", freshet_core::connector::Guarantee::ExactlyOnce);
        let mut destination = open(at(&servers, security)).await;

        let error = destination.lane(&plan).await.unwrap().fence().await.unwrap_err();

        assert_eq!(error.code, code, "{error}");
        assert_eq!(destination.prepare(&plan).await.unwrap_err().code, code);
    }
}

#[tokio::test]
async fn a_setting_outside_the_list_is_refused_before_anything_is_dialled() {
    let registry = freshet_worker::destinations::register(freshet_core::connector::Registry::default());
    let mut bad = settings("p");
    bad["properties"] = json!({"ssl.key.location": "/etc/passwd"});

    let error = registry.find_destination("kafka").unwrap().validate(bad).unwrap_err();

    assert_eq!(error.code, Code::KafkaSetting);
}
