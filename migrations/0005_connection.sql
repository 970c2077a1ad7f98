-- A connection: settings and credentials of a source.
create table connection (
    workspace_id uuid not null references workspace (id),
    id uuid primary key,
    kind text not null,
    name text not null constraint connection_name_length check (char_length(name) between 1 and 200),
    -- Without the secret fields, which lie sealed in `secret`.
    settings jsonb not null,
    -- The steps of the last connection test.
    last_check jsonb,
    last_check_at timestamptz,
    row_version bigint not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    archived_at timestamptz,
    constraint connection_in_workspace unique (workspace_id, id)
);
create unique index connection_name_taken on connection (workspace_id, lower(name)) where archived_at is null;

alter table connection enable row level security;
alter table connection force row level security;
create policy tenant on connection
    using (workspace_id = (select current_workspace()))
    with check (workspace_id = (select current_workspace()));
grant select, insert, update on connection to freshet_app;
