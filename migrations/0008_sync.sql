-- A sync: a model sent to a topic of a destination. Each save of its configuration makes a version.
create table sync (
    workspace_id uuid not null references workspace (id),
    id uuid primary key,
    model_id uuid not null,
    destination_id uuid not null,
    name text not null constraint sync_name_length check (char_length(name) between 1 and 200),
    state text not null default 'draft'
        constraint sync_state_known check (state in ('draft', 'active', 'paused', 'archived')),
    current_version integer not null default 1,
    row_version bigint not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint sync_in_workspace unique (workspace_id, id),
    constraint sync_of_model foreign key (workspace_id, model_id) references model (workspace_id, id),
    constraint sync_to_destination foreign key (workspace_id, destination_id) references destination (workspace_id, id)
);
create unique index sync_name_taken on sync (workspace_id, lower(name)) where state <> 'archived';
-- "Which syncs use this model, this destination" before those are archived.
create index sync_by_model on sync (workspace_id, model_id);
create index sync_by_destination on sync (workspace_id, destination_id);

create table sync_version (
    workspace_id uuid not null references workspace (id),
    id uuid primary key,
    sync_id uuid not null,
    version integer not null,
    model_version_id uuid not null,
    -- Raised when what is read or where it goes changes: a new generation starts from the beginning.
    generation bigint not null,
    config jsonb not null,
    -- The topic after its template is filled in.
    topic text not null,
    created_at timestamptz not null default now(),
    created_by uuid,
    constraint sync_version_in_workspace unique (workspace_id, id),
    constraint sync_version_number unique (sync_id, version),
    constraint sync_version_of_sync foreign key (workspace_id, sync_id) references sync (workspace_id, id),
    constraint sync_version_of_model_version foreign key (workspace_id, model_version_id)
        references model_version (workspace_id, id)
);

-- Where a sync is: what is planned. What is delivered stands in Kafka's progress record; this row follows it.
create table sync_position (
    workspace_id uuid not null references workspace (id),
    sync_id uuid primary key,
    generation bigint not null,
    -- The last batch sealed, and whether it is delivered.
    batch_seq bigint not null default 0,
    batch_state text not null default 'released'
        constraint sync_position_batch_state_known check (batch_state in ('sealed', 'delivered', 'released')),
    -- What the source needs to read the batch again.
    batch jsonb,
    -- What the source wants back at the next seal.
    carry jsonb,
    -- The token of the last change known to be delivered, and its ordinal in the batch.
    token jsonb,
    ordinal bigint not null default 0,
    -- The lane's place in the progress topic: the partition is drawn once, the offset is a hint.
    progress_partition integer,
    progress_offset bigint,
    cluster_id text,
    epoch bigint not null default 0,
    updated_at timestamptz not null default now(),
    constraint sync_position_of_sync foreign key (workspace_id, sync_id) references sync (workspace_id, id)
);

alter table sync enable row level security;
alter table sync force row level security;
create policy tenant on sync
    using (workspace_id = (select current_workspace()))
    with check (workspace_id = (select current_workspace()));
create policy dispatcher on sync to current_user using (true) with check (true);
alter table sync_version enable row level security;
alter table sync_version force row level security;
create policy tenant on sync_version
    using (workspace_id = (select current_workspace()))
    with check (workspace_id = (select current_workspace()));
alter table sync_position enable row level security;
alter table sync_position force row level security;
create policy tenant on sync_position
    using (workspace_id = (select current_workspace()))
    with check (workspace_id = (select current_workspace()));
grant select, insert, update on sync, sync_version, sync_position to freshet_app;
