-- What each sync did on each day, in UTC. It stays when the history that it came from is pruned.
create table usage_day (
    workspace_id uuid not null references workspace (id),
    sync_id uuid not null,
    day date not null,
    run_count bigint not null,
    failed_run_count bigint not null,
    record_count bigint not null,
    dead_count bigint not null,
    record_bytes bigint not null,
    primary key (workspace_id, day, sync_id),
    constraint usage_day_of_sync foreign key (workspace_id, sync_id) references sync (workspace_id, id)
);
alter table usage_day enable row level security;
alter table usage_day force row level security;
create policy tenant on usage_day
    using (workspace_id = (select current_workspace()))
    with check (workspace_id = (select current_workspace()));
create policy dispatcher on usage_day to current_user using (true) with check (true);
grant select, insert, update on usage_day to freshet_app;

-- Whoever ends a run, a worker, a person or the sweep of lost ones: it is counted once, on the day of its end.
create function count_usage() returns trigger language plpgsql as $$
begin
    insert into usage_day as u
    values (new.workspace_id, new.sync_id, (new.finished_at at time zone 'UTC')::date, 1,
            (new.state = 'failed')::int, new.published_count, new.dead_count, new.published_bytes)
    on conflict (workspace_id, day, sync_id) do update
    set run_count = u.run_count + 1,
        failed_run_count = u.failed_run_count + excluded.failed_run_count,
        record_count = u.record_count + excluded.record_count,
        dead_count = u.dead_count + excluded.dead_count,
        record_bytes = u.record_bytes + excluded.record_bytes;
    return null;
end
$$;
create trigger run_counted after update of finished_at on run for each row
    when (old.finished_at is null and new.finished_at is not null)
    execute function count_usage();

-- The days before this table was there.
insert into usage_day
select workspace_id, sync_id, (finished_at at time zone 'UTC')::date, count(*), count(*) filter (where state = 'failed'),
       sum(published_count), sum(dead_count), sum(published_bytes)
from run
where finished_at is not null
group by 1, 2, 3;
