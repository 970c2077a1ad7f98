//! `freshet doctor`: every setting against the world, and what to do.

use freshet_core::db::Db;
use freshet_core::egress::Egress;
use freshet_core::error::Result;
use freshet_core::settings::Settings;
use freshet_core::vault::Vault;

/// Checks in order; a failure says what to do, and the rest is still tried.
pub async fn run() -> anyhow::Result<()> {
    let mut failures = 0;
    let mut tell = |what: &str, found: Result<String>| match found {
        Ok(detail) => println!("ok    {what}: {detail}"),
        Err(error) => {
            failures += 1;
            println!("FAIL  {what}: {}\n      {}", error.message, error.code.action());
        }
    };
    let settings = Settings::load();
    tell("settings", settings.as_ref().map(|_| "all parse".to_owned()).map_err(copy));
    if let Ok(settings) = &settings {
        let vault = Vault::from_setting(&settings.master_keys);
        tell("master keys", vault.map(|vault| format!("secrets are sealed with `{}`", vault.current_key())));
        tell("egress", Egress::from_settings(settings).map(|egress| egress.told()));
        let listen = tokio::net::TcpListener::bind(settings.api_listen).await;
        tell(
            "api",
            Ok(match listen {
                Ok(_) => format!("{} is free", settings.api_listen),
                Err(error) => format!("{} is taken ({error}): an API may be running there", settings.api_listen),
            }),
        );
        let db = Db::connect(settings).await;
        tell(
            "database",
            match &db {
                Ok(db) => db.installation().await.map(|id| format!("schema up to date, installation {id}")),
                Err(error) => Err(copy(error)),
            },
        );
    }
    if failures == 0 { Ok(()) } else { Err(anyhow::anyhow!("{failures} checks failed")) }
}

fn copy(error: &freshet_core::error::Error) -> freshet_core::error::Error {
    freshet_core::error::Error::new(error.code, error.chain())
}
