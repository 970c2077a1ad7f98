-- A model: what is read through a connection. Each save of what is read makes a version.
create table model (
    workspace_id uuid not null references workspace (id),
    id uuid primary key,
    connection_id uuid not null,
    name text not null constraint model_name_length check (char_length(name) between 1 and 200),
    current_version integer not null default 1,
    row_version bigint not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    archived_at timestamptz,
    constraint model_in_workspace unique (workspace_id, id),
    constraint model_of_connection foreign key (workspace_id, connection_id) references connection (workspace_id, id)
);
create unique index model_name_taken on model (workspace_id, lower(name)) where archived_at is null;
-- "Which models use this connection" before it is archived.
create index model_by_connection on model (workspace_id, connection_id);

create table model_version (
    workspace_id uuid not null references workspace (id),
    id uuid primary key,
    model_id uuid not null,
    version integer not null,
    -- {"kind": "table", "schema": …, "table": …} or {"kind": "sql", "sql": …}
    spec jsonb not null,
    -- Empty until named by a person or found at the source.
    primary_key text[] not null,
    -- As the source described them; null until a worker has looked.
    columns jsonb,
    created_at timestamptz not null default now(),
    created_by uuid,
    constraint model_version_in_workspace unique (workspace_id, id),
    constraint model_version_number unique (model_id, version),
    constraint model_version_of_model foreign key (workspace_id, model_id) references model (workspace_id, id)
);

alter table model enable row level security;
alter table model force row level security;
create policy tenant on model
    using (workspace_id = (select current_workspace()))
    with check (workspace_id = (select current_workspace()));
alter table model_version enable row level security;
alter table model_version force row level security;
create policy tenant on model_version
    using (workspace_id = (select current_workspace()))
    with check (workspace_id = (select current_workspace()));
grant select, insert, update on model, model_version to freshet_app;
