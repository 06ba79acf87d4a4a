"""Writes what Celery 5.7 and ephem say about schedules, for the tests of celeriac-core.

    celery-5.7/bin/python tables.py celery      # crontab.tsv, crontab_errors.tsv, relative.tsv
    python tables.py solar                      # solar.tsv; needs ephem

Instants are UTC. The same in every run.
"""

import datetime
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).resolve().parent
UTC = datetime.timezone.utc

CRONTABS = [
    "* * * * *", "*/5 * * * *", "*/7 * * * *", "0 * * * *", "15 * * * *", "0 0 * * *", "30 2 * * *", "0 2 * * *",
    "15 3 * * *", "*/30 1-3 * * *", "15 3 * * sun", "0 9 * * mon-fri", "0 22-2 * * *", "50-10/5 * * * *",
    "0 0 * * fri-mon", "0 0 */10 * *", "0 0 31 * *", "0 0 29 2 *", "0 12 1 jan,jul *", "0 0 13 * fri",
    "0 0 1-7 * mon", "59 23 31 12 *", "5,35 */6 * * *", "0 0 25-5 * *", "1 1 30 * *", "20 4 * 2-11/3 tue,thu",
    "0 0 * 11-2 *", "45 1 * * *", "30 0 * * *", "*/20 1,2 * * *", "0 1 * * sunday", "0 0 29 feb mon",
    "17 5 31 jan,mar *",
]
# A clock is changed by an hour, by half an hour, at midnight, by two hours, never; all have their rules until 2030.
ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Kolkata",
    "Pacific/Auckland", "Antarctica/Troll", "America/Santiago", "Europe/Dublin",
]
WRONG = [
    ("7", "day_of_week"), ("sun-7", "day_of_week"), ("60", "minute"), ("24", "hour"), ("0", "day_of_month"),
    ("32", "day_of_month"), ("0", "month_of_year"), ("13", "month_of_year"), ("5/10", "minute"), ("1,,2", "minute"),
    ("", "minute"), (",", "minute"), ("1,", "minute"), ("*/", "minute"), ("1-5/", "minute"), ("-5", "minute"),
    ("5-", "minute"), ("*/0", "minute"), ("*/x", "minute"), ("x", "minute"), ("1.5", "minute"), ("xyz-3", "hour"),
    ("mo", "day_of_week"), ("funday", "day_of_week"), ("jax", "month_of_year"), ("1-60", "minute"), ("*-5", "minute"),
    ("**", "minute"), ("@daily", "minute"), ("?", "day_of_month"), ("L", "day_of_month"), ("1#2", "day_of_week"),
    # Celery takes these.
    ("50-10", "minute"), ("*/100", "minute"), ("1-5/100", "minute"), ("MON", "day_of_week"), ("mondays", "day_of_week"),
    ("january", "month_of_year"), ("1, 2", "minute"), ("007", "minute"), ("*,5", "minute"), ("5-5", "hour"),
    ("fri-mon/2", "day_of_week"), ("dec-feb", "month_of_year"),
    # These only Celery takes: names of another field, and what follows a part is not looked at.
    ("mon", "minute"), ("jan", "day_of_week"), ("sun", "hour"), ("*/5-3", "minute"), ("1-5-7", "minute"),
    ("1-5/2/3", "minute"), ("+5", "minute"), ("1_0", "minute"), ("*/5 x", "minute"), ("*x", "minute"),
]
DATES = [("30", "2"), ("31", "2,4,6,9,11"), ("31", "feb"), ("30-31", "2"), ("29", "2"), ("31", "4,5"), ("31", "4")]


def text(instant):
    instant = instant.astimezone(UTC)
    return instant.strftime("%Y-%m-%dT%H:%M:%S") + (f".{instant.microsecond:06}" if instant.microsecond else "") + "Z"


def changes(zone):
    """The hours of 2026 and 2027 after which a zone has another offset."""
    hour = datetime.datetime(2026, 1, 1, tzinfo=UTC)
    while hour.year < 2028:
        after = hour + datetime.timedelta(hours=1)
        if hour.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset():
            yield after
        hour = after


def celery():
    from zoneinfo import ZoneInfo

    from celery import Celery
    from celery.schedules import crontab, schedule

    chance = random.Random(11)
    rows = []
    relative = []
    for name in ZONES:
        zone = ZoneInfo(name)
        app = Celery(timezone=name)
        near = list(changes(zone)) or [datetime.datetime(2026, 6, 1, tzinfo=UTC)]

        def remaining(plan, last):
            plan.nowfun = lambda: last
            # In UTC, so that the sum is elapsed time.
            return last.astimezone(UTC) + plan.remaining_estimate(last)

        def some(far):
            if chance.random() < far:
                return datetime.datetime(2026, 1, 1, tzinfo=UTC) + datetime.timedelta(
                    seconds=chance.randrange(2 * 365 * 86400))
            return chance.choice(near) + datetime.timedelta(seconds=chance.randrange(-4 * 3600, 4 * 3600))

        for line in CRONTABS:
            for last in (some(0), some(1)):
                plan = crontab.from_string(line)
                plan.app = app
                rows.append((line, name, text(last), text(remaining(plan, last))))
        for every in (10, 60, 90, 3600, 5400, 6 * 3600, 86400, 7 * 86400, 36 * 3600):
            for last in (some(0), some(0), some(1)):
                # Beat keeps times in the app's zone, and rounding happens in the zone of the time.
                last = last.astimezone(zone)
                plan = schedule(every, relative=True, app=app)
                relative.append((every, name, text(last), text(remaining(plan, last))))
    errors = []
    for written, field in WRONG:
        errors.append((written, field, verdict(lambda: crontab(**{field: written}), field)))
    for day, month in DATES:
        found = verdict(lambda: crontab(day_of_month=day, month_of_year=month), "day_of_month")
        errors.append((day + " " + month, "date", found if found == "error" else "ok"))
    write("crontab", "crontab zone last_run next", rows)
    write("relative", "every zone last_run next", relative)
    write("crontab_errors", "text field celery", errors)


def verdict(make, field):
    """The numbers that Celery reads, or `error`."""
    try:
        return ",".join(map(str, sorted(getattr(make(), field))))
    except Exception:
        return "error"


def solar():
    import ephem

    horizons = {"astronomical": "-18", "nautical": "-12", "civil": "-6"}
    chance = random.Random(12)
    rows = []
    places = [(52.5, 13.4), (0.0, 0.0), (-33.87, 151.21), (40.71, -74.01), (64.15, -21.94), (-54.8, -68.3),
              (1.35, 103.82), (35.68, 139.69), (-13.83, -171.77), (65.0, 25.47)]
    events = ["sunrise", "sunset", "solar_noon"]
    events += [f"{half}_{kind}" for half in ("dawn", "dusk") for kind in horizons]
    for lat, lon in places:
        for event in events:
            for _ in range(4):
                start = datetime.datetime(2024, 1, 1) + datetime.timedelta(seconds=chance.randrange(6 * 365 * 86400))
                # As celery/schedules.py 5.7.0 `solar`.
                cal = ephem.Observer()
                cal.lat, cal.lon, cal.elev, cal.pressure = str(lat), str(lon), 0, 0
                cal.horizon = horizons.get(event.split("_")[1], "0") if "_" in event else "-0:34"
                method = {"sunrise": "next_rising", "sunset": "next_setting", "solar_noon": "next_transit"}.get(event)
                method = method or ("next_rising" if event.startswith("dawn") else "next_setting")
                center = {"use_center": True} if event.startswith(("dawn", "dusk")) else {}
                sun, at = ephem.Sun(), start
                for _ in range(366):
                    try:
                        at = getattr(cal, method)(sun, start=at, **center)
                        break
                    except ephem.CircumpolarError:
                        at = cal.next_antitransit(sun, start=at)
                found = at.datetime().replace(tzinfo=UTC)
                rows.append((event, lat, lon, text(start.replace(tzinfo=UTC)), text(found.replace(microsecond=0))))
    write("solar", "event lat lon after next", rows)


def write(name, head, rows):
    lines = ["\t".join(head.split())] + ["\t".join(map(str, row)) for row in rows]
    (HERE / f"{name}.tsv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    {"celery": celery, "solar": solar}[sys.argv[1]]()
