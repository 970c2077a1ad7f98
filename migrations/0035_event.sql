-- What happened, for programs outside: written in the transaction of what happened, by triggers, so that whoever changes
-- a row tells it: the API, a worker, the sweep of lost runs.
create table event (
    workspace_id uuid not null references workspace (id),
    id uuid primary key default gen_random_uuid(),
    -- Its place in the feed, which readers go on from. It is given when somebody reads, to what is committed by then: an
    -- event of a slow transaction comes after those that were read before it, and none is passed over.
    number bigint,
    kind text not null,
    at timestamptz not null default clock_timestamp(),
    -- Ids, and numbers of limits; never a name or a row's value.
    data jsonb not null
);
create unique index event_number on event (workspace_id, number) where number is not null;
create index event_without_number on event (workspace_id, at) where number is null;
-- What is old goes.
create index event_by_age on event (workspace_id, at);

-- The last number of each workspace's feed. Its row is held while numbers are given: one after the other.
create table feed (
    workspace_id uuid primary key references workspace (id),
    last_number bigint not null default 0
);

do $$
declare
    feed_table text;
begin
    foreach feed_table in array array['event', 'feed'] loop
        execute format('alter table %I enable row level security', feed_table);
        execute format('alter table %I force row level security', feed_table);
        execute format('create policy tenant on %I using (workspace_id = (select current_workspace()))'
                       ' with check (workspace_id = (select current_workspace()))', feed_table);
        execute format('create policy dispatcher on %I to current_user using (true) with check (true)', feed_table);
    end loop;
end
$$;
grant select, insert, update on event, feed to freshet_app;

create function tell_run() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    told text := case
        when tg_op = 'INSERT' then 'run.' || new.state
        when old.finished_at is null and new.finished_at is not null then 'run.' || new.state
        when old.started_at is null and new.started_at is not null then 'run.started'
    end;
begin
    if told is not null then
        insert into event (workspace_id, kind, data)
        values (new.workspace_id, told, jsonb_build_object('run_id', new.id, 'sync_id', new.sync_id));
    end if;
    return null;
end
$$;
create trigger run_inserted_told after insert on run for each row
    when (new.state in ('queued', 'skipped'))
    execute function tell_run();
create trigger run_changed_told after update of state on run for each row
    when (old.state is distinct from new.state)
    execute function tell_run();

create function tell_sync() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
    insert into event (workspace_id, kind, data)
    values (new.workspace_id,
            'sync.' || case
                when new.state = 'active' and old.state = 'paused' then 'resumed'
                when new.state = 'active' then 'activated'
                else new.state
            end,
            jsonb_build_object('sync_id', new.id));
    return null;
end
$$;
create trigger sync_changed_told after update of state on sync for each row
    when (old.state is distinct from new.state)
    execute function tell_sync();

-- Runs tell of themselves already (`run_changed`): their feed's readers wake by that.
create trigger event_inserted after insert on event for each row
    when (new.kind not like 'run.%')
    execute function notify_change('event');
