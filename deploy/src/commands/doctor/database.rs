//! Freshet's own Postgres, and the secrets in it.

use std::os::unix::fs::PermissionsExt as _;

use freshet_core::app::App;
use freshet_core::db::{self, Examined};
use freshet_core::secret::turnover;
use freshet_core::settings::Settings;
use freshet_core::vault::Vault;

use super::{Found, Report, error, failure, fine, warning};
use crate::wire;

/// Secrets of each master key that are tried.
const SAMPLE: i32 = 20;
/// Seconds between our clock and Postgres' that are worth a word, and that break sign-in by a second factor.
const SKEW_S: (f64, f64) = (2.0, 30.0);
/// Connections that others need: migrations, back-ups, a person who looks.
const SPARE: i64 = 5;

pub(super) async fn look(settings: &Settings, report: &mut Report) {
    let examined = db::examine(&settings.database_url, "FRESHET_DATABASE_URL").await;
    match &examined {
        Err(found) => report.tell("database", error(found)),
        Ok(examined) => {
            report.tell("database", fine(format!("PostgreSQL {} answers", examined.server)));
            report.tell("database role", role(examined));
            report.tell("database schema", schema(examined));
            report.tell("database connections", connections(settings, examined));
            report.tell("clock", clock(examined));
        }
    }
    report.tell("database owner", owner(settings).await);
    match Vault::from_settings(settings) {
        Err(found) => report.tell("master keys", error(&found)),
        Ok(vault) => {
            report.tell("master keys", master_keys(settings, &vault));
            if examined.is_ok() {
                report.tell("secrets", secrets(settings).await);
            }
        }
    }
}

fn role(examined: &Examined) -> Found {
    let Examined { role, superuser, bypasses, owns, may_own, .. } = examined;
    let strong = [(superuser, "is a superuser"), (bypasses, "bypasses row-level security"), (owns, "owns the tables")];
    let strong = strong.iter().find(|(is, _)| **is).map(|(_, what)| *what);
    let strong = strong.or(may_own.then_some("may become the owner of the tables"));
    if let Some(owner) = &examined.blind_owner {
        return failure(
            format!("the tables belong to `{owner}`, whom their policies do not know: no run is claimed, no key found"),
            "Let the policies `dispatcher` name the owner: deploy/README.md, \"Back-up and restore\", has the statement.",
        );
    }
    match strong {
        None => fine(format!("`{role}` owns nothing and bypasses nothing")),
        Some(what) => failure(
            format!("`{role}` {what}: row-level security does not hold it"),
            "Log in as `freshet_app`, or as a role that is granted `freshet_app` and nothing else.",
        ),
    }
}

fn schema(examined: &Examined) -> Found {
    let Examined { schema, wanted, .. } = examined;
    let found = schema.map_or_else(|| "no schema".to_owned(), |schema| format!("schema {schema}"));
    match schema {
        Some(schema) if schema == wanted => fine(format!("{found}, which is this program's")),
        Some(schema) if schema > wanted => failure(
            format!("{found}, this program's is {wanted}"),
            "Run the version of Freshet that migrated it, or a later one.",
        ),
        _ => failure(
            format!("{found}, this program's is {wanted}"),
            "Run `freshet migrate` with FRESHET_OWNER_DATABASE_URL.",
        ),
    }
}

async fn owner(settings: &Settings) -> Found {
    if settings.owner_database_url.expose().is_empty() {
        return fine("not given; `freshet migrate` alone needs it");
    }
    match db::examine(&settings.owner_database_url, "FRESHET_OWNER_DATABASE_URL").await {
        Err(found) => error(&found),
        Ok(examined) if examined.superuser || examined.owns || examined.schema.is_none() => warning(
            format!("`{}` can migrate", examined.role),
            "Give it to `freshet migrate` alone: api and worker are not to have the owner's password.",
        ),
        Ok(examined) => failure(
            format!("`{}` does not own the tables", examined.role),
            "Name the role that ran the first `freshet migrate`.",
        ),
    }
}

fn connections(settings: &Settings, examined: &Examined) -> Found {
    let wanted = i64::from(settings.database_connections_max);
    // A run holds one now and then, an operation and a listener one each; fewer make them wait for each other.
    let at_once = (settings.worker_runs_max + settings.worker_operations_max + 2) as i64;
    let (limit, used) = (examined.connections_max, examined.connections_used);
    if wanted > limit - SPARE {
        return failure(
            format!("this process wants up to {wanted}; the server has room for {limit} of this role in all"),
            "Lower FRESHET_DATABASE_CONNECTIONS_MAX, or raise the server's `max_connections` or the role's limit.",
        );
    }
    if wanted < at_once {
        return warning(
            format!("{wanted} connections for up to {at_once} jobs at once"),
            "Raise FRESHET_DATABASE_CONNECTIONS_MAX, or lower FRESHET_WORKER_RUNS_MAX.",
        );
    }
    let processes = (limit - SPARE) / wanted.max(1);
    fine(format!(
        "{wanted} for this process, {limit} at the server, {used} in use: room for {processes} such processes"
    ))
}

fn clock(examined: &Examined) -> Found {
    let skew_s = examined.skew_s;
    let found = format!("{:.1} s {} Postgres", skew_s.abs(), if skew_s < 0.0 { "behind" } else { "ahead of" });
    let action = "Let NTP set both clocks: second factors, sign-in tokens and ages on pages go by them.";
    match skew_s.abs() {
        skew if skew > SKEW_S.1 => failure(found, action),
        skew if skew > SKEW_S.0 => warning(found, action),
        _ => fine(found),
    }
}

fn master_keys(settings: &Settings, vault: &Vault) -> Found {
    let found =
        format!("secrets are sealed with `{}`, and opened with {}", vault.current_key(), vault.names().join(", "));
    let file = &settings.master_keys_file;
    if file.is_empty() {
        return fine(format!("{found}; of the environment: a restart is needed to turn them over"));
    }
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.permissions().mode() & 0o007 != 0 => warning(
            format!("{found}; `{file}` can be read by everybody on this machine"),
            "Take the rights of others away: `chmod o= FILE`.",
        ),
        _ => fine(found),
    }
}

async fn secrets(settings: &Settings) -> Found {
    let app = match wire::app(settings.clone()).await {
        Ok(app) => app,
        Err(found) => return error(&found),
    };
    let found = try_secrets(&app).await;
    app.db.close().await;
    found.unwrap_or_else(|found| error(&found))
}

async fn try_secrets(app: &App) -> freshet_core::error::Result<Found> {
    let uses = turnover::uses(app).await?;
    let lost: Vec<_> = uses.iter().filter(|of| !of.given && of.secrets > 0).collect();
    if let Some(one) = lost.first() {
        let count: i64 = lost.iter().map(|of| of.secrets).sum();
        return Ok(failure(
            format!("{count} secrets are sealed by keys that are not given: `{}`", one.name),
            "Put the key back, after the one that seals; if it is lost, enter those secrets again.",
        ));
    }
    let proved = turnover::prove(app, SAMPLE).await?;
    if let Some((name, _, failed)) = proved.iter().find(|(_, _, failed)| *failed > 0) {
        return Ok(failure(
            format!("{failed} of the secrets of `{name}` that were tried do not open"),
            "The key of this name is another one than it was, or rows were changed or moved: compare with the back-up.",
        ));
    }
    let (current, seals) = (turnover::current(app).await?, app.vault.current_key());
    if current.as_ref().is_some_and(|current| *current != seals) {
        let current = current.unwrap_or_default();
        return Ok(warning(
            format!("`{seals}` comes first here, and `{current}` is the one that became current last"),
            "Wait until every process has the same file; to go back to the older key, `freshet key rewrap`.",
        ));
    }
    let left: i64 = uses.iter().filter(|of| of.name != seals).map(|of| of.secrets).sum();
    if left > 0 {
        return Ok(warning(
            format!("{left} secrets are still to be wrapped by `{seals}`"),
            "Wait: a worker does it; drop no key before `freshet key status` says 0.",
        ));
    }
    let tried: usize = proved.iter().map(|(_, opened, _)| opened).sum();
    let count: i64 = uses.iter().map(|of| of.secrets).sum();
    Ok(fine(format!("{count}, all of `{seals}`; {tried} were tried and open")))
}
