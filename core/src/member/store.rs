//! The statements of memberships and invitations.

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use super::{Invitation, Member, Place};
use crate::access::{Credential, Role};
use crate::db::{Db, OrganizationTx, PersonTx, failed};
use crate::error::Result;
use crate::id::{InvitationId, MembershipId, OrganizationId, PersonalTokenId, SessionId, UserId, WorkspaceId};
use crate::page::PageRequest;

const MEMBER: &str = "m.id, m.user_id, u.email, u.name, m.workspace_id, m.role, m.row_version, m.created_at
                      from membership as m
                      join app_user as u on u.id = m.user_id";

const INVITATION: &str = "id, email, workspace_id, role, created_at, expires_at,
                          case when accepted_at is not null then 'accepted'
                               when revoked_at is not null then 'revoked'
                               when expires_at <= now() then 'expired'
                               else 'open' end as state";

/// The order of roles, the weakest first, as [`Role::ALL`] has it.
const RANK: &str = "array_position(array['viewer', 'operator', 'editor', 'admin', 'owner'], m.role)";

/// Whether the organization of the membership `m` takes its own issuer's word alone, and neither the session `$2` nor the
/// token `$3` of the person `$1` came by it; or the session opens another organization alone.
const BARRED: &str = "((exists (select 1 from sso_connection as c
                                where c.organization_id = m.organization_id and c.enforce)
                        and not exists (
                            select 1 from sso_connection as c
                            where c.organization_id = m.organization_id
                              and c.enforce
                              and (exists (select 1 from session as s
                                           where s.user_id = $1 and s.id = $2
                                             and (c.id = any (s.sso_connections)
                                                  or (c.break_glass_user_id = $1
                                                      and 'pwd' = any (s.amr)
                                                      and s.amr && array['otp', 'kba'])))
                                   or exists (select 1 from personal_token as t
                                              where t.user_id = $1 and t.id = $3
                                                and c.id = any (t.sso_connections)))))
                       or exists (select 1 from session as s
                                  where s.user_id = $1 and s.id = $2
                                    and s.confined_to <> m.organization_id))";

/// The ids of a session and of a token in what a person showed.
fn shown(by: Credential) -> (Option<SessionId>, Option<PersonalTokenId>) {
    match by {
        Credential::Session(id) => (Some(id), None),
        Credential::Token(id) => (None, Some(id)),
        Credential::None => (None, None),
    }
}

/// A role that a person has where a request goes.
#[derive(sqlx::FromRow)]
pub(crate) struct Access {
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) organization_id: OrganizationId,
    #[sqlx(try_from = "String")]
    pub(crate) role: Role,
    pub(crate) of_organization: bool,
    pub(crate) is_active: bool,
    pub(crate) is_barred: bool,
}

/// The roles in a workspace, or in any: at most enough rows to see whether it is one workspace or several. One that is
/// deleted and can be restored is among them if asked for.
pub(crate) async fn access(
    tx: &mut PersonTx,
    by: Credential,
    workspace: Option<WorkspaceId>,
    deleted: bool,
) -> Result<Vec<Access>> {
    let (session, token) = shown(by);
    sqlx::query_as(AssertSqlSafe(format!(
        "select w.id as workspace_id, w.organization_id, m.role, m.workspace_id is null as of_organization,
                w.state = 'active' as is_active, {BARRED} as is_barred
         from membership as m
         join workspace as w
           on w.organization_id = m.organization_id
          and (m.workspace_id is null or m.workspace_id = w.id)
         where m.user_id = $1
           and ($4::uuid is null or w.id = $4)
           and (w.state = 'active' or $5 and w.state = 'deleting')
         order by w.state, is_barred, w.id
         limit 3"
    )))
    .bind(tx.user())
    .bind(session)
    .bind(token)
    .bind(workspace)
    .bind(deleted)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot read the person's roles"))
}

/// The role in the whole of an organization, if the person has one, and whether it is closed to what they showed.
pub(crate) async fn role_in(
    tx: &mut PersonTx,
    by: Credential,
    organization: OrganizationId,
) -> Result<Option<(String, bool)>> {
    let (session, token) = shown(by);
    sqlx::query_as(AssertSqlSafe(format!(
        "select m.role, {BARRED}
         from membership as m
         where m.user_id = $1
           and m.organization_id = $4
           and m.workspace_id is null"
    )))
    .bind(tx.user())
    .bind(session)
    .bind(token)
    .bind(organization)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read the person's role"))
}

/// Every workspace that the person can work in, with the stronger of two roles.
pub(crate) async fn places(tx: &mut PersonTx, by: Credential) -> Result<Vec<Place>> {
    let (session, token) = shown(by);
    sqlx::query_as(AssertSqlSafe(format!(
        "select distinct on (o.name, w.name, w.id)
                w.id as workspace_id, w.slug as workspace_slug, w.name as workspace_name,
                o.id as organization_id, o.name as organization_name, o.slug as organization_slug, m.role,
                {BARRED} as wants_sso
         from membership as m
         join organization as o on o.id = m.organization_id
         join workspace as w
           on w.organization_id = m.organization_id
          and (m.workspace_id is null or m.workspace_id = w.id)
         where m.user_id = $1
           and w.state = 'active'
         order by o.name, w.name, w.id, {RANK} desc
         limit 1000"
    )))
    .bind(tx.user())
    .bind(session)
    .bind(token)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot read the person's workspaces"))
}

pub(crate) async fn list(tx: &mut OrganizationTx, only: Option<WorkspaceId>, page: PageRequest) -> Result<Vec<Member>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {MEMBER}
         where m.organization_id = $1
           and ($2::uuid is null or m.id < $2)
           and ($4::uuid is null or m.workspace_id is null or m.workspace_id = $4)
         order by m.id desc
         limit $3 + 1"
    )))
    .bind(tx.organization())
    .bind(page.before)
    .bind(page.limit)
    .bind(only)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the members"))
}

pub(crate) async fn get(tx: &mut OrganizationTx, id: MembershipId) -> Result<Option<Member>> {
    sqlx::query_as(AssertSqlSafe(format!("select {MEMBER} where m.organization_id = $1 and m.id = $2")))
        .bind(tx.organization())
        .bind(id)
        .fetch_optional(tx.conn())
        .await
        .map_err(failed("cannot read the member"))
}

/// Owners of the whole organization but this membership.
pub(crate) async fn other_owners(tx: &mut OrganizationTx, but: MembershipId) -> Result<i64> {
    sqlx::query_scalar(
        "select count(*)
         from membership as m
         join app_user as u on u.id = m.user_id
         where m.organization_id = $1
           and m.id <> $2
           and m.workspace_id is null
           and m.role = 'owner'
           and u.disabled_at is null",
    )
    .bind(tx.organization())
    .bind(but)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot count the owners"))
}

pub(crate) async fn set_role(tx: &mut OrganizationTx, id: MembershipId, version: i64, role: Role) -> Result<bool> {
    sqlx::query(
        "update membership
         set role = $4, row_version = row_version + 1
         where organization_id = $1
           and id = $2
           and row_version = $3",
    )
    .bind(tx.organization())
    .bind(id)
    .bind(version)
    .bind(role.as_str())
    .execute(tx.conn())
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(failed("cannot change the role"))
}

pub(crate) async fn delete(tx: &mut OrganizationTx, id: MembershipId) -> Result<()> {
    sqlx::query("delete from membership where organization_id = $1 and id = $2")
        .bind(tx.organization())
        .bind(id)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot take the member away"))
}

/// An invitation to be stored.
pub(crate) struct InsertInvitation<'a> {
    pub(crate) id: InvitationId,
    pub(crate) email: &'a str,
    pub(crate) workspace: Option<WorkspaceId>,
    pub(crate) role: Role,
    pub(crate) hash: &'a [u8],
    pub(crate) expires_at: DateTime<Utc>,
}

pub(crate) async fn invite(tx: &mut OrganizationTx, invitation: &InsertInvitation<'_>) -> Result<Invitation> {
    sqlx::query_as(AssertSqlSafe(format!(
        "insert into invitation (organization_id, id, email, workspace_id, role, token_hash, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7)
         returning {INVITATION}"
    )))
    .bind(tx.organization())
    .bind(invitation.id)
    .bind(invitation.email)
    .bind(invitation.workspace)
    .bind(invitation.role.as_str())
    .bind(invitation.hash)
    .bind(invitation.expires_at)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot store the invitation"))
}

pub(crate) async fn find_invitation(db: &Db, hash: &[u8]) -> Result<Option<(OrganizationId, InvitationId)>> {
    sqlx::query_as("select organization_id, id from find_invitation($1)")
        .bind(hash)
        .fetch_optional(db.dispatcher())
        .await
        .map_err(failed("cannot look for the invitation"))
}

pub(crate) async fn invitations(
    tx: &mut OrganizationTx,
    only: Option<WorkspaceId>,
    page: PageRequest,
) -> Result<Vec<Invitation>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {INVITATION}
         from invitation
         where organization_id = $1
           and ($2::uuid is null or id < $2)
           and ($4::uuid is null or workspace_id = $4)
         order by id desc
         limit $3 + 1"
    )))
    .bind(tx.organization())
    .bind(page.before)
    .bind(page.limit)
    .bind(only)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the invitations"))
}

/// The invitation, held until the transaction ends.
pub(crate) async fn get_invitation(tx: &mut OrganizationTx, id: InvitationId) -> Result<Option<Invitation>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {INVITATION} from invitation where organization_id = $1 and id = $2 for update"
    )))
    .bind(tx.organization())
    .bind(id)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read the invitation"))
}

pub(crate) async fn end_invitation(tx: &mut OrganizationTx, id: InvitationId, accepted: bool) -> Result<()> {
    sqlx::query(
        "update invitation
         set accepted_at = case when $3 then now() end,
             revoked_at = case when not $3 then now() end
         where organization_id = $1
           and id = $2",
    )
    .bind(tx.organization())
    .bind(id)
    .bind(accepted)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot end the invitation"))
}

/// Whether this is the one who comes in past an issuer whose word is otherwise asked for.
pub(crate) async fn breaks_glass(tx: &mut OrganizationTx, user: UserId) -> Result<bool> {
    sqlx::query_scalar(
        "select exists (select 1 from sso_connection
                        where organization_id = $1 and enforce and break_glass_user_id = $2)",
    )
    .bind(tx.organization())
    .bind(user)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot read who breaks the glass"))
}
