-- Signing in by an issuer: whose word an organization takes, for which domains, and who is known by it.
create table sso_connection (
    organization_id uuid not null references organization (id),
    id uuid primary key,
    name text not null constraint sso_connection_name_length check (char_length(name) between 1 and 200),
    kind text not null constraint sso_connection_kind_known check (kind in ('oidc', 'google', 'github')),
    issuer text not null constraint sso_connection_issuer_length check (char_length(issuer) between 1 and 500),
    client_id text not null constraint sso_connection_client_id_length check (char_length(client_id) between 1 and 500),
    -- Of the organization's domains those that this issuer speaks for.
    domains text[] not null default '{}',
    -- What somebody new becomes: in the organization, or in one workspace of it.
    default_role text not null constraint sso_connection_role_known
        check (default_role in ('viewer', 'operator', 'editor', 'admin')),
    default_workspace_id uuid,
    -- Whether the organization's workspaces open to those alone whom this issuer vouched for.
    enforce boolean not null default false,
    -- The owner who comes in by password and second factor all the same.
    break_glass_user_id uuid references app_user (id),
    -- When an owner last came in by it: before that it is not enforced.
    owner_signed_in_at timestamptz,
    row_version bigint not null default 1,
    created_at timestamptz not null default now(),
    archived_at timestamptz,
    constraint sso_connection_in_organization unique (organization_id, id),
    constraint sso_connection_workspace foreign key (organization_id, default_workspace_id)
        references workspace (organization_id, id),
    constraint sso_connection_enforced_safely
        check (not enforce or (break_glass_user_id is not null and owner_signed_in_at is not null and archived_at is null))
);
create unique index sso_connection_name_taken on sso_connection (organization_id, name) where archived_at is null;

-- The client's secret, sealed; beside its connection, for the members may see that, and not this.
create table sso_secret (
    organization_id uuid not null,
    connection_id uuid primary key,
    id uuid not null,
    master_key text not null,
    wrapped_key bytea not null,
    ciphertext bytea not null,
    created_at timestamptz not null default now(),
    constraint sso_secret_of_connection foreign key (organization_id, connection_id)
        references sso_connection (organization_id, id)
);
-- Turning a master key over walks the secrets still wrapped by another one.
create index sso_secret_by_master_key on sso_secret (master_key);

-- A domain that an organization claims; it counts once it is verified.
create table domain (
    organization_id uuid not null references organization (id),
    id uuid primary key,
    name text not null constraint domain_name_shape
        check (char_length(name) between 3 and 253
               and name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$'),
    -- What the TXT record has to say; no secret, for it is published.
    proof text not null,
    verified_at timestamptz,
    created_at timestamptz not null default now(),
    constraint domain_name_taken unique (organization_id, name)
);
-- A domain is one organization's: two could send its people to two issuers.
create unique index domain_of_one_organization on domain (name) where verified_at is not null;

-- A sign-in on its way to an issuer and back. State, nonce and verifier are drawn from the browser's cookie, so that
-- nothing of this row opens anything.
create table sso_attempt (
    organization_id uuid not null,
    id uuid primary key,
    connection_id uuid not null,
    state_hash bytea not null constraint sso_attempt_state_length check (octet_length(state_hash) = 32),
    purpose text not null constraint sso_attempt_purpose_known check (purpose in ('sign_in', 'link', 'prove')),
    -- Who links, or proves that it is them; by which session.
    user_id uuid references app_user (id),
    session_id uuid references session (id) on delete cascade,
    next text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    -- It is good once.
    returned_at timestamptz,
    constraint sso_attempt_of_connection foreign key (organization_id, connection_id)
        references sso_connection (organization_id, id),
    constraint sso_attempt_of_somebody check ((purpose = 'sign_in') = (user_id is null))
);
create unique index sso_attempt_by_state on sso_attempt (state_hash);
create index sso_attempt_by_expiry on sso_attempt (organization_id, expires_at);

-- An identity can be named, and says how it came to be.
alter table identity
    add column id uuid not null default gen_random_uuid(),
    add column email text,
    add column used_at timestamptz;
create unique index identity_by_id on identity (id);

-- Which connections vouched for the one who has the session; and, where the one that did is of an organization that does
-- not own the person's address, the only organization that it opens.
alter table session
    add column sso_connections uuid[] not null default '{}',
    add column confined_to uuid references organization (id);
alter table personal_token
    add column sso_connections uuid[] not null default '{}';

do $$
declare
    sso_table text;
begin
    foreach sso_table in array array['sso_connection', 'sso_secret', 'domain', 'sso_attempt'] loop
        execute format('alter table %I enable row level security', sso_table);
        execute format('alter table %I force row level security', sso_table);
        execute format('create policy tenant on %I using (organization_id = (select current_organization()))'
                       ' with check (organization_id = (select current_organization()))', sso_table);
        execute format('create policy dispatcher on %I to current_user using (true) with check (true)', sso_table);
    end loop;
end
$$;
grant select, insert, update on sso_connection to freshet_app;
grant select, insert, update, delete on sso_secret, domain to freshet_app;
grant select, insert, delete on sso_attempt to freshet_app;

-- A member sees how the organization signs in.
create policy member on sso_connection for select
    using (exists (select 1 from membership as m
                   where m.organization_id = sso_connection.organization_id
                     and m.user_id = (select current_person())));

-- The connections for a domain that is verified, or of an organization by its slug, or one by its id: before it is known
-- who asks, so that they can be sent on. Says their names and nothing else.
create function find_sso_connections(wanted_domain text, wanted_slug text, wanted uuid)
returns table (organization_id uuid, organization_name text, id uuid, name text)
language sql stable security definer set search_path = public, pg_temp
begin atomic
    select o.id, o.name, c.id, c.name
    from sso_connection as c
    join organization as o on o.id = c.organization_id
    where c.archived_at is null
      and (c.id = wanted
           or o.slug = wanted_slug
           or (wanted_domain = any (c.domains)
               and exists (select 1 from domain as d
                           where d.organization_id = c.organization_id
                             and d.name = wanted_domain
                             and d.verified_at is not null)))
    order by c.id
    limit 20;
end;

-- Finds an attempt before its organization is known, once, while it is good: only who has the state can ask.
create function take_sso_attempt(state bytea)
returns table (organization_id uuid, connection_id uuid, purpose text, user_id uuid, session_id uuid, next text)
language sql volatile security definer set search_path = public, pg_temp
begin atomic
    update sso_attempt as a set returned_at = now()
    where a.state_hash = state and a.returned_at is null and a.expires_at > now()
    returning a.organization_id, a.connection_id, a.purpose, a.user_id, a.session_id, a.next;
end;

do $$
declare
    lookup text;
begin
    foreach lookup in array array['find_sso_connections(text, text, uuid)', 'take_sso_attempt(bytea)'] loop
        execute format('revoke all on function %s from public', lookup);
        execute format('grant execute on function %s to freshet_app', lookup);
    end loop;
end
$$;
