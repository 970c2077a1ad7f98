//! The domain's statements.

use sqlx::AssertSqlSafe;

use super::Domain;
use crate::db::{OrganizationTx, failed};
use crate::error::Result;
use crate::id::DomainId;
use crate::page::PageRequest;

const DOMAIN: &str = "id, name, '_freshet.' || name as record_name, 'freshet-domain=' || proof as record_text,
                      verified_at, created_at";

pub(crate) async fn list(tx: &mut OrganizationTx, page: PageRequest) -> Result<Vec<Domain>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {DOMAIN}
         from domain
         where organization_id = $1
           and ($2::uuid is null or id < $2)
         order by id desc
         limit $3 + 1"
    )))
    .bind(tx.organization())
    .bind(page.before)
    .bind(page.limit)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the domains"))
}

pub(crate) async fn get(tx: &mut OrganizationTx, id: DomainId) -> Result<Option<Domain>> {
    sqlx::query_as(AssertSqlSafe(format!("select {DOMAIN} from domain where organization_id = $1 and id = $2")))
        .bind(tx.organization())
        .bind(id)
        .fetch_optional(tx.conn())
        .await
        .map_err(failed("cannot read the domain"))
}

pub(crate) async fn find(tx: &mut OrganizationTx, name: &str) -> Result<Option<Domain>> {
    sqlx::query_as(AssertSqlSafe(format!("select {DOMAIN} from domain where organization_id = $1 and name = $2")))
        .bind(tx.organization())
        .bind(name)
        .fetch_optional(tx.conn())
        .await
        .map_err(failed("cannot look for the domain"))
}

pub(crate) async fn insert(tx: &mut OrganizationTx, id: DomainId, name: &str, proof: &str) -> Result<Domain> {
    sqlx::query_as(AssertSqlSafe(format!(
        "insert into domain (organization_id, id, name, proof) values ($1, $2, $3, $4) returning {DOMAIN}"
    )))
    .bind(tx.organization())
    .bind(id)
    .bind(name)
    .bind(proof)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot claim the domain"))
}

pub(crate) async fn set_verified(tx: &mut OrganizationTx, id: DomainId) -> Result<Option<Domain>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "update domain set verified_at = coalesce(verified_at, now())
         where organization_id = $1
           and id = $2
         returning {DOMAIN}"
    )))
    .bind(tx.organization())
    .bind(id)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot note that the domain is proved"))
}

pub(crate) async fn delete(tx: &mut OrganizationTx, id: DomainId) -> Result<()> {
    sqlx::query("delete from domain where organization_id = $1 and id = $2")
        .bind(tx.organization())
        .bind(id)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot give the domain up"))
}

/// The connections that name the domain.
pub(crate) async fn used_by(tx: &mut OrganizationTx, name: &str) -> Result<Vec<String>> {
    sqlx::query_scalar(
        "select name
         from sso_connection
         where organization_id = $1
           and archived_at is null
           and $2 = any (domains)
         order by name
         limit 20",
    )
    .bind(tx.organization())
    .bind(name)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot read who names the domain"))
}

/// Which of these domains the organization has proved.
pub(crate) async fn verified(tx: &mut OrganizationTx, names: &[String]) -> Result<Vec<String>> {
    sqlx::query_scalar(
        "select name
         from domain
         where organization_id = $1
           and name = any ($2)
           and verified_at is not null",
    )
    .bind(tx.organization())
    .bind(names)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot read the domains"))
}
