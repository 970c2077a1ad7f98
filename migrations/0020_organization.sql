-- An organization: whom people belong to and workspaces are of.
create table organization (
    id uuid primary key,
    slug text not null constraint organization_slug_shape check (slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    name text not null constraint organization_name_length check (char_length(name) between 1 and 200),
    -- A session that nobody uses for so long ends, and every session does after so long.
    session_idle_hours integer not null default 12
        constraint organization_session_idle_hours_range check (session_idle_hours between 1 and 12),
    session_hours integer not null default 168
        constraint organization_session_hours_range check (session_hours between 1 and 168),
    row_version bigint not null default 1,
    created_at timestamptz not null default now()
);
create unique index organization_slug_taken on organization (slug);

-- The organization and the person of this transaction, as `current_workspace` has the workspace.
create function current_organization() returns uuid
language sql stable parallel safe
return nullif(current_setting('freshet.organization_id', true), '')::uuid;

create function current_person() returns uuid
language sql stable parallel safe
return nullif(current_setting('freshet.user_id', true), '')::uuid;

alter table organization enable row level security;
alter table organization force row level security;
create policy tenant on organization
    using (id = (select current_organization()))
    with check (id = (select current_organization()));
create policy dispatcher on organization to current_user using (true) with check (true);
grant select, insert, update on organization to freshet_app;

-- Workspaces from before organizations are each one of its own, with the same id.
insert into organization (id, slug, name, created_at)
select id, slug, name, created_at
from workspace;
alter table workspace add column organization_id uuid references organization (id);
update workspace set organization_id = id;
alter table workspace
    alter column organization_id set not null,
    add constraint workspace_in_organization unique (organization_id, id);
create policy of_organization on workspace
    using (organization_id = (select current_organization()))
    with check (organization_id = (select current_organization()));

-- A slug is unique in its organization: that another has it is nobody's business.
drop index workspace_slug_taken;
create unique index workspace_slug_taken on workspace (organization_id, slug);

drop function find_workspace(text);
-- Which workspaces `slug` or `organization/slug` names; for the command line alone, which has the database's password.
create function find_workspaces(wanted text) returns setof uuid
language sql stable security definer set search_path = public, pg_temp
begin atomic
    select w.id
    from workspace as w
    join organization as o on o.id = w.organization_id
    where w.slug = wanted or o.slug || '/' || w.slug = wanted;
end;
revoke all on function find_workspaces(text) from public;
grant execute on function find_workspaces(text) to freshet_app;

-- Which organization a slug names; for the command line alone, which has the database's password.
create function find_organization(wanted text) returns uuid
language sql stable security definer set search_path = public, pg_temp
return (select id from organization where slug = wanted);
revoke all on function find_organization(text) from public;
grant execute on function find_organization(text) to freshet_app;

-- Acts of the whole organization, in whichever of its workspaces is named.
alter table api_key add column of_organization boolean not null default false;

drop function find_api_key(text);
-- Finds a key before its workspace is known. Says nothing that the holder of the key does not know.
create function find_api_key(wanted text)
returns table (
    workspace_id uuid, organization_id uuid, id uuid, service_account_id uuid, secret_hash bytea, scopes text[],
    of_organization boolean, usable boolean
)
language sql volatile security definer set search_path = public, pg_temp
begin atomic
    -- Once a minute is exact enough for "last used" and keeps the row quiet.
    update api_key as k set last_used_at = now()
    where k.key_id = wanted and (k.last_used_at is null or k.last_used_at < now() - interval '1 minute');
    select k.workspace_id, w.organization_id, k.id, k.service_account_id, k.secret_hash, k.scopes, k.of_organization,
           k.revoked_at is null and k.expires_at > now()
    from api_key as k
    join workspace as w on w.id = k.workspace_id
    where k.key_id = wanted;
end;
revoke all on function find_api_key(text) from public;
grant execute on function find_api_key(text) to freshet_app;

-- Whether a workspace is of an organization: a key of the organization names one before its transaction begins.
create function is_workspace_of(workspace uuid, organization uuid) returns boolean
language sql stable security definer set search_path = public, pg_temp
return exists (select 1 from workspace as w where w.id = is_workspace_of.workspace
                                              and w.organization_id = is_workspace_of.organization);
revoke all on function is_workspace_of(uuid, uuid) from public;
grant execute on function is_workspace_of(uuid, uuid) to freshet_app;
