-- ROWS rows of `ORDERS`, the first of them with the id FIRST.
insert into ORDERS
select N,
    mod(N * 7919, 250000),
    'user' || mod(N * 7919, 250000) || '@mail' || mod(N, 50) || '.example',
    case when mod(N, 20) <> 0 then 'Ünit ' || chr(65 + mod(N, 26)) || ' "' || mod(N, 1000) || '", second floor, rear building' end,
    case mod(N, 4) when 0 then 'new' when 1 then 'paid' when 2 then 'shipped' else 'returned' end,
    mod(N * 37, 1000000) / 100,
    mod(N * 41, 100000) / 10000,
    mod(N, 9),
    mod(N, 3) = 0,
    dateadd(second, N, '2024-01-01 00:00:00 +00:00'::timestamp_tz),
    dateadd(millisecond, N * 1000 + 123, '2025-01-01 00:00:00'::timestamp_ntz),
    object_construct('channel', case mod(N, 3) when 0 then 'web' when 1 then 'app' else 'store' end,
        'items', mod(N, 100), 'note', 'leave with the neighbour on the ' || mod(N, 9) || 'th floor')
from (select seq8() + FIRST as N from table(generator(rowcount => ROWS)));
