-- How long history is kept. What is not said is the installation's default.
alter table workspace
    add column run_event_days integer
        constraint workspace_run_event_days_range check (run_event_days between 1 and 3650),
    add column run_days integer
        constraint workspace_run_days_range check (run_days between 1 and 3650),
    add column pruned_at timestamptz;
-- Never less than a quarter of a year: who would hide something could shorten it.
alter table organization
    add column audit_days integer
        constraint organization_audit_days_range check (audit_days between 90 and 3650),
    add column pruned_at timestamptz;

alter table run add column events_pruned boolean not null default false;
-- What is old goes: runs by their ends, and timelines that are still there.
create index run_by_end on run (workspace_id, finished_at) where finished_at is not null;
create index run_with_events on run (workspace_id, finished_at) where finished_at is not null and not events_pruned;
create index session_by_end on session (expires_at);

-- Workspaces that were not pruned since a moment.
create function workspaces_to_prune(since timestamptz, rows_max integer) returns setof uuid
language sql stable security definer set search_path = public, pg_temp
begin atomic
    select w.id
    from workspace as w
    where w.state = 'active' and (w.pruned_at is null or w.pruned_at < since)
    order by w.pruned_at nulls first, w.id
    limit rows_max;
end;

create function organizations_to_prune(since timestamptz, rows_max integer) returns setof uuid
language sql stable security definer set search_path = public, pg_temp
begin atomic
    select o.id
    from organization as o
    where o.pruned_at is null or o.pruned_at < since
    order by o.pruned_at nulls first, o.id
    limit rows_max;
end;

-- Deletes the timelines of at most `runs_max` runs that ended before a moment; of how many.
create function prune_run_events(before timestamptz, runs_max integer) returns bigint
language plpgsql volatile security definer set search_path = public, pg_temp
as $$
declare
    ended uuid[];
begin
    ended := array(select r.id from run as r
                   where r.workspace_id = current_workspace()
                     and r.finished_at < before
                     and not r.events_pruned
                   order by r.finished_at
                   limit runs_max
                   for update skip locked);
    delete from run_event as e where e.workspace_id = current_workspace() and e.run_id = any (ended);
    update run as r set events_pruned = true where r.workspace_id = current_workspace() and r.id = any (ended);
    return cardinality(ended);
end
$$;

-- Deletes at most `runs_max` runs that ended before a moment, with all that hangs on them; how many. The last run of a sync
-- stays, and the last that succeeded or failed, for its state is the sync's; so does one whose batch is not released.
create function prune_runs(before timestamptz, runs_max integer) returns bigint
language plpgsql volatile security definer set search_path = public, pg_temp
as $$
declare
    ended uuid[];
begin
    ended := array(select r.id from run as r
                   where r.workspace_id = current_workspace()
                     and r.finished_at < before
                     and r.state in ('succeeded', 'succeeded_with_errors', 'failed', 'cancelled', 'skipped')
                     and exists (select 1 from run as later
                                 where later.workspace_id = r.workspace_id
                                   and later.sync_id = r.sync_id
                                   and later.id > r.id
                                   and (later.state in ('succeeded', 'succeeded_with_errors', 'failed')
                                        or later.finished_at is not null and r.state in ('cancelled', 'skipped')))
                     and not exists (select 1 from sync_position as p
                                     where p.workspace_id = r.workspace_id
                                       and p.sync_id = r.sync_id
                                       and p.batch_seq = r.batch_seq
                                       and p.batch_state <> 'released')
                   order by r.finished_at
                   limit runs_max
                   for update of r skip locked);
    delete from source_query as q where q.workspace_id = current_workspace() and q.run_id = any (ended);
    delete from dead_letter_group as g where g.workspace_id = current_workspace() and g.run_id = any (ended);
    delete from run_partition as p where p.workspace_id = current_workspace() and p.run_id = any (ended);
    delete from run_event as e where e.workspace_id = current_workspace() and e.run_id = any (ended);
    delete from attempt as a where a.workspace_id = current_workspace() and a.run_id = any (ended);
    delete from run as r where r.workspace_id = current_workspace() and r.id = any (ended);
    return cardinality(ended);
end
$$;

-- Deletes events of the feed that are older than a moment; how many.
create function prune_events(before timestamptz, rows_max integer) returns bigint
language plpgsql volatile security definer set search_path = public, pg_temp
as $$
declare
    gone bigint;
begin
    delete from event as e
    where e.workspace_id = current_workspace()
      and e.id in (select o.id from event as o
                   where o.workspace_id = current_workspace() and o.at < before
                   order by o.at
                   limit rows_max);
    get diagnostics gone = row_count;
    return gone;
end
$$;

-- Deletes sessions that ended before a moment, and words of mails; how many.
create function prune_sessions(before timestamptz, rows_max integer) returns bigint
language plpgsql volatile security definer set search_path = public, pg_temp
as $$
declare
    sessions bigint;
    words bigint;
begin
    delete from session as s
    where s.id in (select o.id from session as o where o.expires_at < before order by o.expires_at limit rows_max);
    get diagnostics sessions = row_count;
    delete from mailed_token as t
    where t.token_hash in (select o.token_hash from mailed_token as o where o.expires_at < before limit rows_max);
    get diagnostics words = row_count;
    return sessions + words;
end
$$;

-- Deletes the transaction's organization's links up to one, with their lines, and keeps where the chain goes on from: the
-- number and the hash of the last that went.
create function prune_audit(upto bigint) returns bigint
language plpgsql volatile security definer set search_path = public, pg_temp
as $$
declare
    organization uuid := current_organization();
    head bytea;
    gone bigint;
begin
    select l.hash into head from audit_link as l where l.organization_id = organization and l.seq = upto;
    if head is null then
        return 0;
    end if;
    delete from audit_event as e
    using audit_link as l
    where l.organization_id = organization and l.seq <= upto and e.organization_id = organization and e.id = l.event_id;
    get diagnostics gone = row_count;
    delete from audit_link as l where l.organization_id = organization and l.seq <= upto;
    insert into audit_chain (organization_id, pruned_seq, pruned_hash) values (organization, upto, head)
    on conflict (organization_id) do update set pruned_seq = excluded.pruned_seq, pruned_hash = excluded.pruned_hash;
    return gone;
end
$$;

do $$
declare
    step text;
begin
    foreach step in array array['workspaces_to_prune(timestamptz, integer)', 'organizations_to_prune(timestamptz, integer)',
                                'prune_run_events(timestamptz, integer)', 'prune_runs(timestamptz, integer)',
                                'prune_events(timestamptz, integer)', 'prune_sessions(timestamptz, integer)',
                                'prune_audit(bigint)'] loop
        execute format('revoke all on function %s from public', step);
        execute format('grant execute on function %s to freshet_app', step);
    end loop;
end
$$;
