//! What Freshet listens on and talks to, beside its database.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use freshet_core::domain;
use freshet_core::egress::Egress;
use freshet_core::mail::Mailer;
use freshet_core::settings::{Reach, Settings, SignUp};
use freshet_worker::sources::snowflake::Hosts;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;

use super::{Found, Report, error, failure, fine, warning};
use crate::traces;

/// How long somebody else may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn look(settings: &Settings, report: &mut Report) {
    report.tell("api", listens("FRESHET_API_LISTEN", settings.api_listen).await);
    report.tell("metrics", metrics(settings).await);
    report.tell("public url", public_url(settings));
    report.tell("mail", mail(settings).await);
    report.tell("dns", dns(settings));
    report.tell("traces", traces(settings).await);
    report.tell("egress", egress(settings));
    report.tell("snowflake hosts", snowflake_hosts(settings));
    report.tell("log", log(settings));
}

async fn listens(setting: &str, address: SocketAddr) -> Found {
    match TcpListener::bind(address).await {
        Ok(_) => fine(format!("{address} is free")),
        Err(found) if found.kind() == std::io::ErrorKind::AddrInUse => {
            fine(format!("{address} is taken: this Freshet may be running there"))
        }
        Err(found) => failure(
            format!("{address}: {found}"),
            format!("Name an address of this machine, and a port above 1023, in {setting}."),
        ),
    }
}

async fn metrics(settings: &Settings) -> Found {
    let address = settings.metrics_listen.as_str();
    if address.is_empty() {
        return fine("nobody is told");
    }
    let Ok(parsed) = address.parse::<SocketAddr>() else {
        return failure(format!("`{address}` is no address"), "Write FRESHET_METRICS_LISTEN as `127.0.0.1:8471`.");
    };
    if parsed == settings.api_listen {
        return failure(format!("{address} is the API's"), "Give FRESHET_METRICS_LISTEN a port of its own.");
    }
    match listens("FRESHET_METRICS_LISTEN", parsed).await {
        found if parsed.ip().is_unspecified() && found.2.is_none() => warning(
            format!("{}; on every address, and nobody is asked for a key", found.1),
            "Keep the port from strangers, or name the address that Prometheus uses.",
        ),
        found => found,
    }
}

/// Whether a server is named, not whether it answers: nothing there is ours to ask for.
fn dns(settings: &Settings) -> Found {
    match domain::check_server(&settings.dns_server) {
        Ok(()) if settings.dns_server.is_empty() => fine("proofs of domains are asked of the system's server"),
        Ok(()) => fine(format!("proofs of domains are asked of {}", settings.dns_server)),
        Err(found) => error(&found),
    }
}

fn public_url(settings: &Settings) -> Found {
    let text = settings.public_url();
    let Some(url) = url::Url::parse(&text).ok().filter(url::Url::has_host) else {
        return failure(
            format!("`{text}` is no address"),
            "Write FRESHET_PUBLIC_URL as `https://freshet.example.com`.",
        );
    };
    if !["http", "https"].contains(&url.scheme()) || url.query().is_some() || url.path() != "/" || url.username() != ""
    {
        return failure(
            format!("`{text}` is more, or other, than scheme, host and port"),
            "Write FRESHET_PUBLIC_URL as `https://freshet.example.com`.",
        );
    }
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(url::Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    };
    if url.scheme() == "http" && !loopback {
        return failure(
            format!("{text}: cookies and keys go over the network in the clear"),
            "Put a proxy with TLS in front, and set FRESHET_PUBLIC_URL to its `https://…`.",
        );
    }
    fine(text)
}

async fn mail(settings: &Settings) -> Found {
    let mailer = match Mailer::new(settings) {
        Ok(mailer) => mailer,
        Err(found) => return error(&found),
    };
    if !mailer.is_there() {
        return match settings.sign_up {
            SignUp::Closed => fine("none is sent"),
            SignUp::Open => warning(
                "none is sent, and anybody may sign up: nobody can prove an address",
                "Set FRESHET_SMTP_URL and FRESHET_MAIL_FROM, or FRESHET_SIGN_UP=closed.",
            ),
        };
    }
    match timeout(PATIENCE, mailer.try_out()).await {
        Ok(Ok(())) => fine("the server answers and takes our login"),
        Ok(Err(found)) => failure(
            found.chain(),
            "Check host, port, user and password in FRESHET_SMTP_URL, and that this machine may reach the server.",
        ),
        Err(_) => failure(
            format!("the server does not answer within {PATIENCE:?}"),
            "Check host and port in FRESHET_SMTP_URL, and that this machine may reach the server.",
        ),
    }
}

async fn traces(settings: &Settings) -> Found {
    let told = |found: anyhow::Error| failure(format!("{found:#}"), "Mend the setting that is named.");
    let url = match traces::url(settings) {
        Ok(Some(url)) => url,
        Ok(None) => return fine("none are taken"),
        Err(found) => return told(found),
    };
    let (client, headers) = match (traces::client(), traces::headers(settings)) {
        (Ok(client), Ok(headers)) => (client, headers),
        (Err(found), _) | (_, Err(found)) => return told(found),
    };
    // No span at all is a request that every collector takes.
    let mut request = client.post(&url).header("content-type", "application/x-protobuf");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let action = "Check FRESHET_OTLP_ENDPOINT (OTLP over HTTP, port 4318 as a rule) and FRESHET_OTLP_HEADERS; nothing waits for the collector meanwhile.";
    match request.send().await {
        Ok(answer) if answer.status().is_success() => {
            fine(format!("the collector takes them; {} of those that begin here", settings.otlp_ratio))
        }
        Ok(answer) => failure(format!("the collector answers {}", answer.status()), action),
        Err(found) => failure(format!("the collector cannot be reached: {}", found.without_url()), action),
    }
}

fn egress(settings: &Settings) -> Found {
    let policy = match Egress::from_settings(settings) {
        Ok(policy) => policy,
        Err(found) => return error(&found),
    };
    match (settings.sign_up, settings.egress_reach) {
        (SignUp::Open, Reach::Private) => warning(
            format!("{}; and anybody may sign up", policy.told()),
            "Set FRESHET_EGRESS_REACH=public: strangers are not to have workers dial private networks.",
        ),
        _ => fine(policy.told()),
    }
}

fn snowflake_hosts(settings: &Settings) -> Found {
    match Hosts::parse(&settings.snowflake_hosts) {
        Err(found) => error(&found),
        Ok(_) if settings.snowflake_hosts.is_empty() => fine("Snowflake's own"),
        Ok(_) => fine(format!("Snowflake's own, and {}", settings.snowflake_hosts)),
    }
}

fn log(settings: &Settings) -> Found {
    match EnvFilter::try_new(&settings.log) {
        Ok(_) => fine(settings.log.clone()),
        Err(found) => failure(format!("`{}`: {found}", settings.log), "Write FRESHET_LOG as `info,sqlx=warn`."),
    }
}
