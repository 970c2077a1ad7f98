-- Where workers dial for an organization, if that is not what the installation's settings say. Whoever runs the
-- installation writes it from the command line; to the organization it is shown.
create table organization_egress (
    organization_id uuid primary key references organization (id),
    reach text not null constraint organization_egress_reach_known check (reach in ('private', 'public')),
    -- Networks and addresses, with commas; parsed before it is written.
    allow text not null constraint organization_egress_allow_length check (char_length(allow) <= 4000),
    updated_at timestamptz not null default now()
);
alter table organization_egress enable row level security;
alter table organization_egress force row level security;
create policy tenant on organization_egress
    using (organization_id = (select current_organization()))
    with check (organization_id = (select current_organization()));
-- A worker knows the workspace that it dials for.
create policy of_workspace on organization_egress for select
    using (organization_id = (select w.organization_id from workspace as w where w.id = (select current_workspace())));
create policy dispatcher on organization_egress to current_user using (true) with check (true);
grant select, insert, update, delete on organization_egress to freshet_app;
