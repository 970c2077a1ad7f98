-- A history to page through: `bench.syncs` syncs like the one there is, `bench.runs` ended runs of each, with an attempt and
-- three events, in the workspace `bench.workspace`. Ids sort by time, as ours do.
create or replace function bench_id(at timestamptz) returns uuid language sql volatile as $$
    select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(random()::text), 1, 3)
            || '8' || substr(md5(random()::text), 1, 15))::uuid
$$;

create temporary table made as
select bench_id(now() - interval '100 days') as sync_id, bench_id(now() - interval '100 days') as version_id, n
from generate_series(1, current_setting('bench.syncs')::int) as n;

insert into sync (workspace_id, id, model_id, destination_id, name, state)
select sync.workspace_id, made.sync_id, sync.model_id, sync.destination_id, 'orders, copy ' || made.n, 'paused'
from made, sync
where sync.id = current_setting('bench.sync')::uuid;

insert into sync_version (workspace_id, id, sync_id, version, model_version_id, generation, config, topic)
select version.workspace_id, made.version_id, made.sync_id, 1, version.model_version_id, 1, version.config,
       version.topic || '.' || made.n
from made, sync_version as version
where version.sync_id = current_setting('bench.sync')::uuid and version.version = 1;

insert into sync_position (workspace_id, sync_id, generation, batch_seq)
select position.workspace_id, made.sync_id, 1, current_setting('bench.runs')::int
from made, sync_position as position
where position.sync_id = current_setting('bench.sync')::uuid;

create temporary table ran as
select made.sync_id, made.version_id, at, bench_id(at) as id, number
from made, generate_series(1, current_setting('bench.runs')::int) as number,
     lateral (select now() - number * interval '20 hours' + made.n * interval '1 second' as at) as moment;

insert into run (workspace_id, id, sync_id, sync_version_id, trigger, state, outcome, queued_at, due_at, started_at,
                 finished_at, epoch, attempt_count, batch_seq, read_count, created_count, published_count, published_bytes,
                 event_seq)
select current_setting('bench.workspace')::uuid, id, sync_id, version_id, 'api',
       case when number % 20 = 0 then 'failed' else 'succeeded' end, case when number % 3 = 0 then 'no_changes' end,
       at, at, at, at + interval '40 seconds', 1, 1, number, 1000, 1000, 1000, 400000, 3
from ran;

insert into attempt (workspace_id, id, run_id, number, epoch, worker, started_at, finished_at, outcome)
select current_setting('bench.workspace')::uuid, bench_id(at), id, 1, 1, 'bench', at, at + interval '40 seconds',
       case when number % 20 = 0 then 'failed' else 'succeeded' end
from ran;

insert into run_event (workspace_id, run_id, seq, at, level, code, message)
select current_setting('bench.workspace')::uuid, id, seq, at, 'info', 'batch.sealed', 'the batch is fixed at the source'
from ran, generate_series(1, 3) as seq;

drop table made, ran;
