-- `orders`: 12 columns of mixed types, about 400 bytes as JSON. The number of rows is the setting `bench.rows`.
create table orders (
    id bigint primary key,
    customer_id bigint not null,
    email text not null,
    name text,
    status text not null,
    amount numeric(12,2) not null,
    tax numeric(12,4),
    quantity integer not null,
    is_paid boolean not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    attributes jsonb
);

insert into orders
select n,
    n * 7919 % 250000,
    'user' || n * 7919 % 250000 || '@mail' || n % 50 || '.example',
    case when n % 20 <> 0 then 'Ünit ' || chr(65 + (n % 26)::int) || ' "' || n % 1000 || '", second floor, rear building' end,
    (array['new', 'paid', 'shipped', 'returned'])[1 + n % 4],
    n * 37 % 1000000 / 100.0,
    n * 41 % 100000 / 10000.0,
    n % 9,
    n % 3 = 0,
    timestamptz '2024-01-01 00:00Z' + n * interval '1 s',
    timestamptz '2025-01-01 00:00Z' + n * interval '1.000123 s',
    jsonb_build_object('channel', (array['web', 'app', 'store'])[1 + n % 3], 'items', n % 100,
        'note', 'leave with the neighbour on the ' || n % 9 || 'th floor')
from generate_series(1::bigint, current_setting('bench.rows')::bigint) as n;
