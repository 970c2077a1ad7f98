-- The chain over the audit log of an organization: who changes, removes or slips in a line breaks it. Links are written
-- soon after the lines, in one order; the lines themselves are never touched.
create table audit_link (
    organization_id uuid not null references organization (id),
    -- From 1, without gaps.
    seq bigint not null,
    event_id uuid not null,
    -- SHA-256 of the link before and of the line (core/src/audit/chain.rs says how the line is written).
    hash bytea not null constraint audit_link_hash_length check (octet_length(hash) = 32),
    linked_at timestamptz not null default now(),
    primary key (organization_id, seq)
);
-- A line has one place.
create unique index audit_link_of_event on audit_link (event_id);

-- Where the chain begins when what was before is pruned, and what its last check found.
create table audit_chain (
    organization_id uuid primary key references organization (id),
    pruned_seq bigint not null default 0,
    pruned_hash bytea,
    checked_at timestamptz,
    checked_links bigint,
    -- What is wrong; null when nothing is.
    finding text
);

do $$
declare
    chain_table text;
begin
    foreach chain_table in array array['audit_link', 'audit_chain'] loop
        execute format('alter table %I enable row level security', chain_table);
        execute format('alter table %I force row level security', chain_table);
        execute format('create policy tenant on %I using (organization_id = (select current_organization()))'
                       ' with check (organization_id = (select current_organization()))', chain_table);
        execute format('create policy dispatcher on %I to current_user using (true) with check (true)', chain_table);
    end loop;
end
$$;
grant select, insert on audit_link to freshet_app;
grant select, insert, update on audit_chain to freshet_app;
create policy dispatcher on audit_event to current_user using (true) with check (true);

-- Organizations that have lines without a place; a line that got none within a day is the check's to find.
create function organizations_to_chain(rows_max integer) returns setof uuid
language sql stable security definer set search_path = public, pg_temp
begin atomic
    select distinct e.organization_id
    from audit_event as e
    where e.at > now() - interval '1 day'
      and not exists (select 1 from audit_link as l where l.event_id = e.id)
    limit rows_max;
end;

-- Organizations whose chain was not checked for an hour.
create function organizations_to_check(rows_max integer) returns setof uuid
language sql stable security definer set search_path = public, pg_temp
begin atomic
    select o.id
    from organization as o
    left join audit_chain as c on c.organization_id = o.id
    where c.checked_at is null or c.checked_at < now() - interval '1 hour'
    order by c.checked_at nulls first
    limit rows_max;
end;

revoke all on function organizations_to_chain(integer), organizations_to_check(integer) from public;
grant execute on function organizations_to_chain(integer), organizations_to_check(integer) to freshet_app;
create index audit_event_by_time on audit_event (at);
