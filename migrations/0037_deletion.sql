-- Deleting a workspace: it rests for an undo period, then its secrets go in one step, its rows in batches, and its own row
-- last. Foreign keys keep that row while anything is left, so a crash anywhere is gone on from.
alter table workspace
    add column row_version bigint not null default 1,
    add column state text not null default 'active'
        constraint workspace_state_known check (state in ('active', 'deleting', 'erasing')),
    add column delete_after timestamptz,
    add column delete_asked_at timestamptz,
    add column delete_asked_kind text,
    add column delete_asked_by uuid,
    -- How many rows of each kind are gone so far; for the receipt.
    add column erased jsonb not null default '{}',
    add constraint workspace_delete_after_known check ((state = 'active') = (delete_after is null));
create index workspace_to_erase on workspace (delete_after) where state <> 'active';

-- The log is the organization's: it outlives a workspace, and its chain is over each line as it is.
alter table audit_event drop constraint audit_event_workspace_id_fkey;

-- A key of a workspace that is to be deleted works no more, and nobody acts there.
create or replace function find_api_key(wanted text)
returns table (
    workspace_id uuid, organization_id uuid, id uuid, service_account_id uuid, secret_hash bytea, scopes text[],
    of_organization boolean, usable boolean
)
language sql volatile security definer set search_path = public, pg_temp
begin atomic
    -- Once a minute is exact enough for "last used" and keeps the row quiet.
    update api_key as k set last_used_at = now()
    where k.key_id = wanted and (k.last_used_at is null or k.last_used_at < now() - interval '1 minute');
    select k.workspace_id, w.organization_id, k.id, k.service_account_id, k.secret_hash, k.scopes, k.of_organization,
           k.revoked_at is null and k.expires_at > now() and w.state = 'active'
    from api_key as k
    join workspace as w on w.id = k.workspace_id
    where k.key_id = wanted;
end;

create or replace function is_workspace_of(workspace uuid, organization uuid) returns boolean
language sql stable security definer set search_path = public, pg_temp
return exists (select 1 from workspace as w where w.id = is_workspace_of.workspace
                                              and w.organization_id = is_workspace_of.organization
                                              and w.state = 'active');

drop function find_workspaces(text);
-- Which workspaces of a state `slug` or `organization/slug` names; for the command line alone, which has the database's
-- password.
create function find_workspaces(wanted text, of_state text) returns setof uuid
language sql stable security definer set search_path = public, pg_temp
begin atomic
    select w.id
    from workspace as w
    join organization as o on o.id = w.organization_id
    where (w.slug = wanted or o.slug || '/' || w.slug = wanted)
      and w.state = of_state;
end;
revoke all on function find_workspaces(text, text) from public;
grant execute on function find_workspaces(text, text) to freshet_app;

-- As in 0009_run, but for workspaces that are active alone, and within the plan's limit. Its text is read at each call, so
-- that a column more of `run` is part of what comes back.
create or replace function claim_runs(slots integer, claimer text, lease_s double precision)
returns setof run
language sql volatile security definer set search_path = public, pg_temp
as $$
    with waiting as materialized (
        select w.id as workspace_id,
               least(w.runs_max, (p.limits || o.limits ->> 'runs_at_once')::integer) as runs_max,
               (select count(*) from run as r
                where r.workspace_id = w.id
                  and r.state in ('claimed', 'extracting', 'publishing', 'finalizing', 'cancelling')) as working
        from workspace as w
        join organization as o on o.id = w.organization_id
        join plan as p on p.name = o.plan
        where w.state = 'active'
          and exists (select 1 from run as r where r.workspace_id = w.id and r.state in ('queued', 'retry_wait'))
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
$$;

-- As in 0010_operation, but for workspaces that are active alone.
create or replace function claim_operations(slots integer, claimer text, lease_s double precision)
returns setof operation
language sql volatile security definer set search_path = public, pg_temp
as $$
    with head as materialized (
        select c.id, c.created_at, row_number() over (partition by w.id order by c.created_at) as turn
        from workspace as w
        cross join lateral (
            select o.id, o.created_at from operation as o
            where o.workspace_id = w.id and o.state = 'pending'
            order by o.created_at
            limit slots
        ) as c
        where w.state = 'active'
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
$$;

-- Workspaces whose undo period is over, with their organizations. One whose run is still held waits for the end of that.
create function workspaces_to_erase(at timestamptz, rows_max integer)
returns table (organization_id uuid, id uuid)
language sql stable security definer set search_path = public, pg_temp
begin atomic
    select w.organization_id, w.id
    from workspace as w
    where w.state <> 'active'
      and w.delete_after <= at
      and not exists (select 1 from run as r
                      where r.workspace_id = w.id
                        and r.state in ('claimed', 'extracting', 'publishing', 'finalizing', 'cancelling'))
    order by w.delete_after
    limit rows_max;
end;

-- Adds to the counts of a workspace that is being erased.
create function count_erased(at uuid, kind text, gone bigint) returns void
language sql volatile
as $$
    update workspace as w
    set erased = w.erased || jsonb_build_object(kind, coalesce((w.erased ->> kind)::bigint, 0) + gone)
    where w.id = at and gone > 0;
$$;

-- Deletes some rows of the transaction's workspace, if that is being erased, and counts them in its row: of the first of its
-- tables that has any, `rows_max` at most; of runs a tenth of that, with all that hangs on them. False when nothing is left.
-- A table that comes later is added here, before those that it refers to; a test looks for what is left.
create function erase_rows(rows_max integer) returns boolean
language plpgsql volatile security definer set search_path = public, pg_temp
as $$
declare
    at uuid := current_workspace();
    kind text;
    gone bigint;
    ended uuid[];
begin
    -- Held, so that one worker erases at a time, and the counts are right.
    perform 1 from workspace as w where w.id = at and w.state = 'erasing' for update;
    if not found then
        return false;
    end if;
    -- What hangs on a run is found by its run.
    ended := array(select r.id from run as r where r.workspace_id = at limit greatest(1, rows_max / 10));
    if cardinality(ended) > 0 then
        foreach kind in array array['source_query', 'dead_letter_group', 'run_partition', 'run_event', 'run_trace',
                                    'attempt'] loop
            execute format('delete from %I where workspace_id = $1 and run_id = any ($2)', kind) using at, ended;
            get diagnostics gone = row_count;
            perform count_erased(at, kind, gone);
        end loop;
        delete from run as r where r.workspace_id = at and r.id = any (ended);
        perform count_erased(at, 'run', cardinality(ended));
        return true;
    end if;
    foreach kind in array array['event', 'feed', 'idempotency_key', 'consent', 'secret', 'operation', 'usage_day',
                                'sync_position', 'sync_version', 'sync', 'model_version', 'model', 'destination',
                                'connection', 'api_key', 'service_account', 'invitation', 'membership'] loop
        -- Keys refer to each other: they go together.
        execute format('delete from %I where workspace_id = $1 and ctid = any (array('
                       'select ctid from %I where workspace_id = $1 limit $2))', kind, kind)
        using at, case when kind = 'api_key' then null else rows_max end;
        get diagnostics gone = row_count;
        if gone > 0 then
            perform count_erased(at, kind, gone);
            return true;
        end if;
    end loop;
    return false;
end
$$;

-- The last step: the row of a workspace of which nothing else is left. What it knew comes back for the receipt.
create function erase_workspace(of_organization uuid, wanted uuid)
returns table (asked_at timestamptz, asked_kind text, asked_by uuid, erased jsonb)
language sql volatile security definer set search_path = public, pg_temp
begin atomic
    -- Whom an issuer let into this workspace alone is not let into all of the organization: nobody new comes in by it.
    update sso_connection as c
    set default_workspace_id = null, default_role = 'viewer', domains = '{}', row_version = c.row_version + 1
    where c.organization_id = of_organization
      and c.organization_id = current_organization()
      and c.default_workspace_id = wanted;
    delete from workspace as w
    where w.id = wanted
      and w.organization_id = of_organization
      and w.organization_id = current_organization()
      and w.state = 'erasing'
    returning w.delete_asked_at, w.delete_asked_kind, w.delete_asked_by, w.erased;
end;

do $$
declare
    step text;
begin
    foreach step in array array['workspaces_to_erase(timestamptz, integer)', 'erase_rows(integer)',
                                'erase_workspace(uuid, uuid)'] loop
        execute format('revoke all on function %s from public', step);
        execute format('grant execute on function %s to freshet_app', step);
    end loop;
end
$$;
