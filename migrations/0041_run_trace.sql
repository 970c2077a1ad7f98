-- The trace of the request that asked for a run, if anybody takes traces: the attempts go on in it.
create table run_trace (
    workspace_id uuid not null,
    run_id uuid primary key,
    traceparent text not null constraint run_trace_shape check (traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'),
    constraint run_trace_of_run foreign key (workspace_id, run_id) references run (workspace_id, id) on delete cascade
);
alter table run_trace enable row level security;
alter table run_trace force row level security;
create policy tenant on run_trace
    using (workspace_id = (select current_workspace()))
    with check (workspace_id = (select current_workspace()));
create policy dispatcher on run_trace to current_user using (true) with check (true);
grant select, insert, delete on run_trace to freshet_app;
