-- An operation: a question that only a worker may answer. The API inserts it, a worker fills it in.
create table operation (
    workspace_id uuid not null references workspace (id),
    id uuid primary key,
    kind text not null,
    -- Ids and parameters; never a secret.
    input jsonb not null,
    requested_by uuid,
    state text not null default 'pending' constraint operation_state_known check (state in (
        'pending', 'running', 'succeeded', 'failed', 'cancelled')),
    result jsonb,
    error_code text,
    error_message text,
    created_at timestamptz not null default now(),
    finished_at timestamptz,
    -- The answer may hold rows of a preview: it is deleted after this.
    expires_at timestamptz not null default now() + interval '1 hour',
    epoch bigint not null default 0,
    worker text,
    lease_until timestamptz,
    attempt_count integer not null default 0,
    cancel_requested_at timestamptz,
    constraint operation_in_workspace unique (workspace_id, id)
);
-- The claim: oldest first within a workspace.
create index operation_pending on operation (workspace_id, created_at) where state = 'pending';
create index operation_running on operation (lease_until) where state = 'running';
create index operation_expiry on operation (expires_at);
create index operation_by_workspace on operation (workspace_id, id desc);

alter table operation enable row level security;
alter table operation force row level security;
create policy tenant on operation
    using (workspace_id = (select current_workspace()))
    with check (workspace_id = (select current_workspace()));
create policy dispatcher on operation to current_user using (true) with check (true);
grant select, insert, update on operation to freshet_app;

create trigger operation_inserted after insert on operation
    for each row execute function notify_change('operation');
create trigger operation_changed after update of state on operation
    for each row execute function notify_change('operation');

-- Claims at most `slots` operations, one workspace after the other.
create function claim_operations(slots integer, claimer text, lease_s double precision)
returns setof operation
language sql volatile security definer set search_path = public, pg_temp
begin atomic
    with head as materialized (
        select c.id, c.created_at, row_number() over (partition by w.id order by c.created_at) as turn
        from workspace as w
        cross join lateral (
            select o.id, o.created_at from operation as o
            where o.workspace_id = w.id and o.state = 'pending'
            order by o.created_at
            limit slots
        ) as c
    ), pick as materialized (
        select locked.id
        from (select id from head order by turn, created_at) as next
        cross join lateral (
            select o.id from operation as o where o.id = next.id and o.state = 'pending' for update skip locked
        ) as locked
        limit slots
    )
    update operation as o
    set state = 'running', epoch = nextval('epoch'), worker = claimer,
        lease_until = now() + make_interval(secs => lease_s), attempt_count = o.attempt_count + 1
    from pick
    where o.id = pick.id
    returning o.*;
end;
revoke all on function claim_operations(integer, text, double precision) from public;
grant execute on function claim_operations(integer, text, double precision) to freshet_app;

create function extend_operations(ids uuid[], epochs bigint[], lease_s double precision)
returns table (id uuid, cancel boolean)
language sql volatile security definer set search_path = public, pg_temp
begin atomic
    update operation as o
    set lease_until = now() + make_interval(secs => lease_s)
    from unnest(ids, epochs) as held (id, epoch)
    where o.id = held.id and o.epoch = held.epoch and o.state = 'running'
    returning o.id, o.cancel_requested_at is not null;
end;
revoke all on function extend_operations(uuid[], bigint[], double precision) from public;
grant execute on function extend_operations(uuid[], bigint[], double precision) to freshet_app;

-- Operations of lost workers are asked once more, then fail; answers past their time are deleted.
create function reap_operations(attempts_max integer)
returns setof uuid
language sql volatile security definer set search_path = public, pg_temp
begin atomic
    delete from operation as o
    where o.id in (select e.id from operation as e where e.expires_at < now() and e.state <> 'running'
                   order by e.expires_at limit 100 for update skip locked);
    update operation as o
    set state = case when o.cancel_requested_at is not null then 'cancelled'
                     when o.attempt_count >= attempts_max then 'failed' else 'pending' end,
        error_code = case when o.attempt_count >= attempts_max then 'platform.lease_lost' end,
        error_message = case when o.attempt_count >= attempts_max then 'the worker stopped answering' end,
        finished_at = case when o.attempt_count >= attempts_max then now() end,
        epoch = nextval('epoch'), worker = null, lease_until = null
    where o.id in (select l.id from operation as l where l.state = 'running' and l.lease_until < now()
                   order by l.lease_until limit 100 for update skip locked)
    returning o.id;
end;
revoke all on function reap_operations(integer) from public;
grant execute on function reap_operations(integer) to freshet_app;

create function give_back_operations(ids uuid[], epochs bigint[])
returns setof uuid
language sql volatile security definer set search_path = public, pg_temp
begin atomic
    update operation as o
    set state = 'pending', worker = null, lease_until = null, attempt_count = o.attempt_count - 1
    from unnest(ids, epochs) as held (id, epoch)
    where o.id = held.id and o.epoch = held.epoch and o.state = 'running'
    returning o.id;
end;
revoke all on function give_back_operations(uuid[], bigint[]) from public;
grant execute on function give_back_operations(uuid[], bigint[]) to freshet_app;
