-- A run: one execution of a sync. This table is the queue of record.
create table run (
    workspace_id uuid not null references workspace (id),
    id uuid primary key,
    sync_id uuid not null,
    sync_version_id uuid not null,
    trigger text not null constraint run_trigger_known check (trigger in ('api', 'command', 'retry')),
    requested_by uuid,
    -- The run that this one repeats.
    parent_run_id uuid,
    -- How many further triggers were answered with this run while it was queued.
    coalesced_count integer not null default 0,
    state text not null default 'queued' constraint run_state_known check (state in (
        'queued', 'claimed', 'extracting', 'publishing', 'finalizing', 'retry_wait', 'cancelling',
        'succeeded', 'succeeded_with_errors', 'failed', 'cancelled', 'skipped')),
    -- 'no_changes' for a run that had nothing to send.
    outcome text,
    failure_code text,
    failure_message text,
    priority smallint not null default 5 constraint run_priority_range check (priority between 0 and 9),
    queued_at timestamptz not null default now(),
    -- Not claimed before.
    due_at timestamptz not null default now(),
    started_at timestamptz,
    finished_at timestamptz,
    -- The claim: raised each time; every later write of a worker names it.
    epoch bigint not null default 0,
    worker text,
    lease_until timestamptz,
    cancel_requested_at timestamptz,
    attempt_count integer not null default 0,
    -- Attempts in a row that ended without progress; progress sets it back.
    fruitless_count integer not null default 0,
    -- The batch that this run sealed.
    batch_seq bigint,
    -- What to add to the counts of the batch in hand to get the run's: a run can finish a batch that another began.
    count_base jsonb not null default '{}',
    read_count bigint not null default 0,
    created_count bigint not null default 0,
    updated_count bigint not null default 0,
    deleted_count bigint not null default 0,
    refreshed_count bigint not null default 0,
    published_count bigint not null default 0,
    dead_count bigint not null default 0,
    published_bytes bigint not null default 0,
    event_seq bigint not null default 0,
    row_version bigint not null default 1,
    constraint run_in_workspace unique (workspace_id, id),
    constraint run_of_sync foreign key (workspace_id, sync_id) references sync (workspace_id, id),
    constraint run_of_sync_version foreign key (workspace_id, sync_version_id)
        references sync_version (workspace_id, id)
) with (fillfactor = 80);   -- Progress is written once a second: room for it on the same page.

-- A sync has at most one queued run: a second trigger, from any server, gets the run already there.
create unique index run_one_queued_per_sync on run (sync_id) where state = 'queued';
-- A sync has at most one run under way: order per key in Kafka rests on it.
create unique index run_one_active_per_sync on run (sync_id)
    where state in ('claimed', 'extracting', 'publishing', 'finalizing', 'retry_wait', 'cancelling');
-- The claim looks at the head of each workspace's queue.
create index run_claimable on run (workspace_id, priority desc, queued_at) where state in ('queued', 'retry_wait');
-- The claim counts what each workspace has under way.
create index run_working on run (workspace_id)
    where state in ('claimed', 'extracting', 'publishing', 'finalizing', 'cancelling');
-- The history, newest first: of a workspace and of a sync.
create index run_by_workspace on run (workspace_id, id desc);
create index run_by_sync on run (workspace_id, sync_id, id desc);

-- An attempt: one worker's try at a run.
create table attempt (
    workspace_id uuid not null references workspace (id),
    id uuid primary key,
    run_id uuid not null,
    number integer not null,
    epoch bigint not null,
    worker text not null,
    started_at timestamptz not null default now(),
    finished_at timestamptz,
    outcome text constraint attempt_outcome_known check (outcome in (
        'succeeded', 'failed', 'cancelled', 'interrupted', 'released')),
    failure_code text,
    failure_message text,
    constraint attempt_in_workspace unique (workspace_id, id),
    constraint attempt_number_once unique (run_id, number),
    constraint attempt_of_run foreign key (workspace_id, run_id) references run (workspace_id, id)
);

-- A run's timeline. Append-only; `seq` orders it and is the `id` of its server-sent events.
create table run_event (
    workspace_id uuid not null references workspace (id),
    run_id uuid not null,
    seq bigint not null,
    at timestamptz not null default clock_timestamp(),
    level text not null constraint run_event_level_known check (level in ('info', 'warning', 'error')),
    code text not null,
    message text not null,
    data jsonb not null default '{}',
    primary key (run_id, seq),
    constraint run_event_of_run foreign key (workspace_id, run_id) references run (workspace_id, id)
);

-- Where a run's records landed: first and last offset of each partition.
create table run_partition (
    workspace_id uuid not null references workspace (id),
    run_id uuid not null,
    topic text not null,
    partition integer not null,
    first_offset bigint not null,
    last_offset bigint not null,
    record_count bigint not null,
    primary key (run_id, topic, partition),
    constraint run_partition_of_run foreign key (workspace_id, run_id) references run (workspace_id, id)
);

-- A run's dead letters by reason. The rows themselves are on the dead-letter topic, never here.
create table dead_letter_group (
    workspace_id uuid not null references workspace (id),
    id uuid primary key,
    run_id uuid not null,
    code text not null,
    column_name text not null,
    reason text not null,
    record_count bigint not null,
    first_ordinal bigint not null,
    last_ordinal bigint not null,
    first_at timestamptz not null default now(),
    last_at timestamptz not null default now(),
    constraint dead_letter_group_in_workspace unique (workspace_id, id),
    constraint dead_letter_group_reason unique (run_id, code, column_name, reason),
    constraint dead_letter_group_of_run foreign key (workspace_id, run_id) references run (workspace_id, id)
);

do $$
declare
    tenant_table text;
begin
    foreach tenant_table in array array['run', 'attempt', 'run_event', 'run_partition', 'dead_letter_group'] loop
        execute format('alter table %I enable row level security', tenant_table);
        execute format('alter table %I force row level security', tenant_table);
        execute format('create policy tenant on %I using (workspace_id = (select current_workspace()))'
                       ' with check (workspace_id = (select current_workspace()))', tenant_table);
        execute format('grant select, insert, update on %I to freshet_app', tenant_table);
    end loop;
end
$$;
create policy dispatcher on run to current_user using (true) with check (true);
create policy dispatcher on attempt to current_user using (true) with check (true);
create policy dispatcher on run_event to current_user using (true) with check (true);

create trigger run_inserted after insert on run
    for each row execute function notify_change('run');
create trigger run_changed after update of state, row_version on run
    for each row execute function notify_change('run');

-- Writes one line of a run's timeline, with the next number.
create function add_run_event(of_run uuid, event_level text, event_code text, event_message text, event_data jsonb)
returns bigint
language sql
begin atomic
    with numbered as (
        update run set event_seq = event_seq + 1, row_version = row_version + 1
        where id = of_run
        returning workspace_id, id, event_seq
    )
    insert into run_event (workspace_id, run_id, seq, level, code, message, data)
    select workspace_id, id, event_seq, event_level, event_code, event_message, event_data
    from numbered
    returning seq;
end;
grant execute on function add_run_event(uuid, text, text, text, jsonb) to freshet_app;

-- Claims at most `slots` runs for a worker, fairly: each workspace's next run ranks by how many that workspace has
-- under way, so a workspace with a thousand queued runs and one with a single run take turns. A run waits while
-- another of its sync is under way.
--
-- Every common table is materialized: the plan is then the same with and without statistics.
create function claim_runs(slots integer, claimer text, lease_s double precision)
returns setof run
language sql volatile security definer set search_path = public, pg_temp
begin atomic
    with waiting as materialized (
        select w.id as workspace_id, w.runs_max,
               (select count(*) from run as r
                where r.workspace_id = w.id
                  and r.state in ('claimed', 'extracting', 'publishing', 'finalizing', 'cancelling')) as working
        from workspace as w
        where exists (select 1 from run as r where r.workspace_id = w.id and r.state in ('queued', 'retry_wait'))
    ), head as materialized (
        select c.id, c.priority, c.queued_at,
               waiting.working + row_number() over (
                   partition by waiting.workspace_id order by c.priority desc, c.queued_at) as turn
        from waiting
        cross join lateral (
            select r.id, r.priority, r.queued_at
            from run as r
            where r.workspace_id = waiting.workspace_id
              and r.state in ('queued', 'retry_wait')
              and r.due_at <= now()
              and (r.state = 'retry_wait' or not exists (
                  select 1 from run as active
                  where active.sync_id = r.sync_id
                    and active.state in (
                        'claimed', 'extracting', 'publishing', 'finalizing', 'retry_wait', 'cancelling')))
            order by r.priority desc, r.queued_at
            limit greatest(0, least(slots, waiting.runs_max - waiting.working))
        ) as c
    ), pick as materialized (
        select locked.id
        from (select id from head order by turn, priority desc, queued_at) as next
        cross join lateral (
            select r.id from run as r
            where r.id = next.id and r.state in ('queued', 'retry_wait')
            for update skip locked
        ) as locked
        limit slots
    )
    update run as r
    set state = 'claimed',
        epoch = nextval('epoch'),
        worker = claimer,
        lease_until = now() + make_interval(secs => lease_s),
        attempt_count = r.attempt_count + 1,
        started_at = coalesce(r.started_at, now()),
        row_version = r.row_version + 1
    from pick
    where r.id = pick.id
    returning r.*;
end;
revoke all on function claim_runs(integer, text, double precision) from public;
grant execute on function claim_runs(integer, text, double precision) to freshet_app;

-- Extends the leases a worker still holds; says of each whether a person asked to cancel. What does not come back
-- is lost to this worker.
create function extend_runs(ids uuid[], epochs bigint[], lease_s double precision)
returns table (id uuid, cancel boolean)
language sql volatile security definer set search_path = public, pg_temp
begin atomic
    update run as r
    set lease_until = now() + make_interval(secs => lease_s)
    from unnest(ids, epochs) as held (id, epoch)
    where r.id = held.id
      and r.epoch = held.epoch
      and r.state in ('claimed', 'extracting', 'publishing', 'finalizing', 'cancelling')
    returning r.id, r.cancel_requested_at is not null;
end;
revoke all on function extend_runs(uuid[], bigint[], double precision) from public;
grant execute on function extend_runs(uuid[], bigint[], double precision) to freshet_app;

-- Takes runs away from workers whose lease ran out: the attempt is interrupted, the run is due again at once, or
-- ends when it was being cancelled. After `fruitless_max` attempts in a row without progress it fails.
create function reap_runs(fruitless_max integer)
returns setof uuid
language plpgsql volatile security definer set search_path = public, pg_temp
as $$
declare
    lost run;
    ended text;
begin
    for lost in
        select * from run as r
        where r.state in ('claimed', 'extracting', 'publishing', 'finalizing', 'cancelling')
          and r.lease_until < now()
        order by r.lease_until
        limit 100
        for update skip locked
    loop
        ended := case
            when lost.cancel_requested_at is not null then 'cancelled'
            when lost.fruitless_count + 1 >= fruitless_max then 'failed'
            else 'retry_wait'
        end;
        update attempt as a
        set outcome = 'interrupted', finished_at = now(), failure_code = 'platform.lease_lost',
            failure_message = 'the worker stopped answering'
        where a.run_id = lost.id and a.finished_at is null;
        update run as r
        set state = ended,
            epoch = nextval('epoch'),
            worker = null,
            lease_until = null,
            due_at = now(),
            fruitless_count = r.fruitless_count + 1,
            finished_at = case when ended = 'retry_wait' then null else now() end,
            failure_code = case when ended = 'failed' then 'platform.lease_lost' else r.failure_code end,
            failure_message = case when ended = 'failed'
                then 'the workers of ' || fruitless_max || ' attempts in a row stopped answering'
                else r.failure_message end,
            row_version = r.row_version + 1
        where r.id = lost.id;
        perform add_run_event(lost.id, 'warning', 'attempt.interrupted',
            'worker ' || coalesce(lost.worker, '?') || ' stopped answering; its lease ran out',
            jsonb_build_object('attempt', lost.attempt_count, 'state', ended));
        return next lost.id;
    end loop;
end
$$;
revoke all on function reap_runs(integer) from public;
grant execute on function reap_runs(integer) to freshet_app;

-- Gives back runs that were claimed and not started; no attempt is counted.
create function give_back_runs(ids uuid[], epochs bigint[])
returns setof uuid
language sql volatile security definer set search_path = public, pg_temp
begin atomic
    update run as r
    set state = case when r.attempt_count > 1 then 'retry_wait' else 'queued' end,
        due_at = now(), worker = null, lease_until = null,
        attempt_count = r.attempt_count - 1,
        row_version = r.row_version + 1
    from unnest(ids, epochs) as held (id, epoch)
    where r.id = held.id and r.epoch = held.epoch and r.state = 'claimed'
    returning r.id;
end;
revoke all on function give_back_runs(uuid[], bigint[]) from public;
grant execute on function give_back_runs(uuid[], bigint[]) to freshet_app;
