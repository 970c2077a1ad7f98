-- A plan: how much an organization may have. A limit that a plan does not name, or names null, is none.
create table plan (
    name text primary key constraint plan_name_shape check (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    limits jsonb not null constraint plan_limits_are_an_object check (jsonb_typeof(limits) = 'object')
);
insert into plan (name, limits) values ('unlimited', '{}');
grant select, insert, update on plan to freshet_app;

alter table organization
    add column plan text not null default 'unlimited',
    -- Limits that are other than the plan's.
    add column limits jsonb not null default '{}'
        constraint organization_limits_are_an_object check (jsonb_typeof(limits) = 'object'),
    add constraint organization_plan_known foreign key (plan) references plan (name);

-- The limits of the transaction's organization, or of the organization that its workspace is of.
create function tenant_limits() returns jsonb
language sql stable security definer set search_path = public, pg_temp
return (select p.limits || o.limits
        from organization as o
        join plan as p on p.name = o.plan
        where o.id = coalesce((select current_organization()),
                              (select w.organization_id from workspace as w where w.id = (select current_workspace()))));

-- Records that the same organization moved since a day, over all of its workspaces: a number alone.
create function tenant_records(since date) returns bigint
language sql stable security definer set search_path = public, pg_temp
return (select coalesce(sum(u.record_count), 0)::bigint
        from workspace as w
        join usage_day as u on u.workspace_id = w.id and u.day >= since
        where w.organization_id = coalesce(
            (select current_organization()),
            (select o.organization_id from workspace as o where o.id = (select current_workspace()))));

-- Workspaces of the same organization, however they stand.
create function tenant_workspaces() returns bigint
language sql stable security definer set search_path = public, pg_temp
return (select count(*)
        from workspace as w
        where w.organization_id = coalesce(
            (select current_organization()),
            (select o.organization_id from workspace as o where o.id = (select current_workspace()))));

-- People of the same organization, and invitations that can still be accepted.
create function tenant_members() returns bigint
language sql stable security definer set search_path = public, pg_temp
return (select (select count(distinct m.user_id) from membership as m where m.organization_id = of.id)
             + (select count(distinct lower(i.email)) from invitation as i
                where i.organization_id = of.id
                  and i.accepted_at is null and i.revoked_at is null and i.expires_at > now()
                  and not exists (select 1 from membership as m join app_user as u on u.id = m.user_id
                                  where m.organization_id = of.id and lower(u.email) = lower(i.email)))
        from (select coalesce((select current_organization()),
                              (select w.organization_id from workspace as w
                               where w.id = (select current_workspace()))) as id) as of);

do $$
declare
    lookup text;
begin
    foreach lookup in array array['tenant_limits()', 'tenant_records(date)', 'tenant_workspaces()', 'tenant_members()'] loop
        execute format('revoke all on function %s from public', lookup);
        execute format('grant execute on function %s to freshet_app', lookup);
    end loop;
end
$$;

-- Once four fifths of the month's records are moved, it is told: by the run whose end brings them there.
create function warn_of_records() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    most bigint;
    used bigint;
begin
    select (p.limits || o.limits ->> 'records_per_month')::bigint into most
    from workspace as w
    join organization as o on o.id = w.organization_id
    join plan as p on p.name = o.plan
    where w.id = new.workspace_id;
    if most is null or new.published_count = 0 then
        return null;
    end if;
    select coalesce(sum(u.record_count), 0) into used
    from workspace as w
    join workspace as other on other.organization_id = w.organization_id
    join usage_day as u on u.workspace_id = other.id
    where w.id = new.workspace_id
      and u.day >= date_trunc('month', new.finished_at at time zone 'UTC')::date;
    -- Its own records are counted by now: `run_counted` comes first, by its name.
    if used * 5 >= most * 4 and (used - new.published_count) * 5 < most * 4 then
        insert into event (workspace_id, kind, data)
        values (new.workspace_id, 'quota.warning',
                jsonb_build_object('limit', 'records_per_month', 'value', most, 'used', used));
    end if;
    return null;
end
$$;
create trigger run_ended_within_limits after update of finished_at on run for each row
    when (old.finished_at is null and new.finished_at is not null)
    execute function warn_of_records();
