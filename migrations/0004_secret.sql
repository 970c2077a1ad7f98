-- Sealed secrets. Each has a data key of its own, wrapped by a master key that is named here and lives elsewhere.
create table secret (
    workspace_id uuid not null references workspace (id),
    id uuid primary key,
    -- The connection or destination it belongs to, and which of its fields it is: `password`, `tls.key`.
    owner_id uuid not null,
    field text not null,
    -- The name of the master key that wraps the data key; it can be turned over (`freshet key rewrap`).
    master_key text not null,
    wrapped_key bytea not null,
    ciphertext bytea not null,
    created_at timestamptz not null default now(),
    constraint secret_in_workspace unique (workspace_id, id),
    constraint secret_once_per_field unique (workspace_id, owner_id, field)
);
-- Turning a master key over walks the secrets still wrapped by another one.
create index secret_by_master_key on secret (master_key);

alter table secret enable row level security;
alter table secret force row level security;
create policy tenant on secret
    using (workspace_id = (select current_workspace()))
    with check (workspace_id = (select current_workspace()));
create policy dispatcher on secret to current_user using (true) with check (true);
grant select, insert, update, delete on secret to freshet_app;

-- The next secrets not wrapped by `current`, of any workspace; the wrapping is of no use without the master key.
create function secrets_to_rewrap(current_key text, rows_max integer)
returns table (workspace_id uuid, id uuid, master_key text, wrapped_key bytea)
language sql stable security definer set search_path = public, pg_temp
begin atomic
    select s.workspace_id, s.id, s.master_key, s.wrapped_key
    from secret as s
    where s.master_key <> current_key
    order by s.id
    limit rows_max;
end;
revoke all on function secrets_to_rewrap(text, integer) from public;
grant execute on function secrets_to_rewrap(text, integer) to freshet_app;
