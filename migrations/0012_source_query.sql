-- What a run asked of its source, as far as the source has a name for it: for Snowflake its query ids.
create table source_query (
    workspace_id uuid not null references workspace (id),
    run_id uuid not null,
    -- The source's own id of the statement.
    query_id text not null,
    -- Its first words, without names or values: 'create transient table'.
    statement text not null,
    started_at timestamptz not null,
    -- From the request to the beginning of the answer.
    seconds double precision not null,
    row_count bigint not null,
    -- As the source announced them, before compression where it says so.
    byte_count bigint not null,
    -- Whether it needed the source's engine: for Snowflake a warehouse.
    is_computed boolean not null,
    -- An estimate of what it cost, in the source's own unit.
    credits double precision not null,
    primary key (run_id, query_id),
    constraint source_query_of_run foreign key (workspace_id, run_id) references run (workspace_id, id)
);
alter table source_query enable row level security;
alter table source_query force row level security;
create policy tenant on source_query using (workspace_id = (select current_workspace()))
    with check (workspace_id = (select current_workspace()));
grant select, insert, update on source_query to freshet_app;
