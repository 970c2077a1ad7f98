-- Programs: service accounts and their keys.
create table service_account (
    workspace_id uuid not null references workspace (id),
    id uuid primary key,
    name text not null constraint service_account_name_length check (char_length(name) between 1 and 200),
    created_at timestamptz not null default now(),
    constraint service_account_in_workspace unique (workspace_id, id)
);
create unique index service_account_name_taken on service_account (workspace_id, lower(name));

create table api_key (
    workspace_id uuid not null references workspace (id),
    id uuid primary key,
    service_account_id uuid not null,
    -- The public part of the key, by which it is found.
    key_id text not null,
    -- SHA-256 of the whole key. Fast on purpose: the secret part has 256 bits of its own.
    secret_hash bytea not null constraint api_key_hash_length check (octet_length(secret_hash) = 32),
    scopes text[] not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    revoked_at timestamptz,
    last_used_at timestamptz,
    constraint api_key_in_workspace unique (workspace_id, id),
    constraint api_key_of_service_account foreign key (workspace_id, service_account_id)
        references service_account (workspace_id, id)
);
-- Looked up by every request.
create unique index api_key_by_key_id on api_key (key_id);

alter table service_account enable row level security;
alter table service_account force row level security;
create policy tenant on service_account
    using (workspace_id = (select current_workspace()))
    with check (workspace_id = (select current_workspace()));
alter table api_key enable row level security;
alter table api_key force row level security;
create policy tenant on api_key
    using (workspace_id = (select current_workspace()))
    with check (workspace_id = (select current_workspace()));
create policy dispatcher on api_key to current_user using (true) with check (true);
grant select, insert, update on service_account, api_key to freshet_app;

-- Finds a key before its workspace is known. Says nothing that the holder of the key does not know.
create function find_api_key(wanted text)
returns table (
    workspace_id uuid, id uuid, service_account_id uuid, secret_hash bytea, scopes text[], usable boolean
)
language sql volatile security definer set search_path = public, pg_temp
begin atomic
    -- Once a minute is exact enough for "last used" and keeps the row quiet.
    update api_key as k set last_used_at = now()
    where k.key_id = wanted and (k.last_used_at is null or k.last_used_at < now() - interval '1 minute');
    select k.workspace_id, k.id, k.service_account_id, k.secret_hash, k.scopes,
           k.revoked_at is null and k.expires_at > now()
    from api_key as k
    where k.key_id = wanted;
end;
revoke all on function find_api_key(text) from public;
grant execute on function find_api_key(text) to freshet_app;
