-- A destination: a Kafka cluster.
create table destination (
    workspace_id uuid not null references workspace (id),
    id uuid primary key,
    kind text not null,
    name text not null constraint destination_name_length check (char_length(name) between 1 and 200),
    settings jsonb not null,
    -- The cluster's own id as first seen; another one later means another cluster behind the same address.
    cluster_id text,
    last_check jsonb,
    last_check_at timestamptz,
    row_version bigint not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    archived_at timestamptz,
    constraint destination_in_workspace unique (workspace_id, id)
);
create unique index destination_name_taken on destination (workspace_id, lower(name)) where archived_at is null;

alter table destination enable row level security;
alter table destination force row level security;
create policy tenant on destination
    using (workspace_id = (select current_workspace()))
    with check (workspace_id = (select current_workspace()));
grant select, insert, update on destination to freshet_app;
