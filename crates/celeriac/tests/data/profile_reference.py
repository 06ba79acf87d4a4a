#!/usr/bin/env python3
"""Computes column profiles of a CSV file from their written definitions.

Independent check of `celeriac::demo::profile`: Python standard library only, sharing no code or
structure with the Rust side. Prints {"rows": …, "columns": […]} with the field names of
`ColumnProfile`. Python 3.9 or newer.

    python3 profile_reference.py FILE.csv [--delimiter ,] [--encoding utf-8-sig]

Comparison rule, for each column in order:

* names, types, counts, texts, lists of values and `null` (None) are equal;
* an integer column's `min` and `max` are equal as integers;
* every other number (`min` and `max` of float columns, `mean`, `standard_deviation`, `q1`,
  `median`, `q3`, the mean length, fences and examples of outliers) differs by at most 1e-9
  relatively, or by 1e-12 absolutely where either one is smaller than 1e-3 (`close` below).

Numbers beyond 1e300 are not compared: Python's own statistics overflow there, Rust's do not.

Definitions:

* A cell is trimmed of Unicode White_Space. It is null if it then is one of NULL_TOKENS.
* type, over the values that are not null, all must match, first of: integer (sign, digits without
  leading zeros, 64 bits), float (finite decimal with point or exponent, or integer), boolean
  (true/false/yes/no, any case), date (YYYY-MM-DD or YYYY/MM/DD), datetime (date, T or space,
  HH:MM[:SS[.1-9 digits]], then nothing, Z, +HH:MM or +HHMM; no offset means UTC), text;
  "empty" without values.
* min, max: numbers by value, dates and times by moment (equal moments by text), texts by code
  point. Boolean and empty have none.
* standard_deviation: sample (n - 1), needs two values. Quartiles: statistics.quantiles with
  method='inclusive'; a single value is its own quartile.
* outliers: values outside q1 - 1.5 (q3 - q1) .. q3 + 1.5 (q3 - q1); examples are the 5 different
  values furthest beyond their fence, ties ascending.
* top_values: 5 values by falling count, then by text; null_tokens likewise, all of them.
* lengths: of text columns, in code points. Texts longer than 200 code points are cut and get "…".
* A repeated column name becomes name_2, an empty one column_3 (its position).
"""

import argparse
import collections
import csv
import datetime
import json
import math
import re
import statistics
import sys

NULL_TOKENS = {"", "-", "?", "#N/A", "N/A", "n/a", "NA", "NaN", "nan", "NULL", "null", "None"}
# Unicode White_Space; str.strip() would take U+001C..U+001F as well.
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
WHOLE = r"(?:0|[1-9][0-9]*)"
INTEGER = re.compile(rf"[+-]?{WHOLE}")
DECIMAL = re.compile(
    rf"[+-]?(?:{WHOLE}\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?{WHOLE}[eE][+-]?[0-9]+"
)
DATE = re.compile(r"([0-9]{4})([-/])([0-9]{2})\2([0-9]{2})")
DATETIME = re.compile(
    DATE.pattern + r"[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r"(?:Z|([+-])([0-9]{2}):?([0-9]{2}))?"
)


def integer_of(text):
    if not INTEGER.fullmatch(text):
        return None
    value = int(text)
    return value if -(2**63) <= value < 2**63 else None


def float_of(text):
    if INTEGER.fullmatch(text):
        value = integer_of(text)
        return None if value is None else float(value)
    if not DECIMAL.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def boolean_of(text):
    return text.lower() if text.lower() in {"true", "false", "yes", "no"} else None


def calendar_day(year, month, day):
    try:
        return datetime.date(int(year), int(month), int(day)).toordinal()
    except ValueError:
        return None


def date_of(text):
    match = DATE.fullmatch(text)
    return calendar_day(match[1], match[3], match[4]) if match else None


def datetime_of(text):
    """Nanoseconds from the start of year 1 in UTC."""
    match = DATETIME.fullmatch(text)
    day = calendar_day(match[1], match[3], match[4]) if match else None
    if day is None:
        return None
    hour, minute, second = int(match[5]), int(match[6]), int(match[7] or 0)
    east_hour, east_minute = int(match[10] or 0), int(match[11] or 0)
    if hour > 23 or minute > 59 or second > 59 or east_hour > 23 or east_minute > 59:
        return None
    east = (east_hour * 60 + east_minute) * (-1 if match[9] == "-" else 1)
    seconds = ((day * 24 + hour) * 60 + minute - east) * 60 + second
    return seconds * 10**9 + int((match[8] or "0").ljust(9, "0"))


READERS = {
    "integer": integer_of,
    "float": float_of,
    "boolean": boolean_of,
    "date": date_of,
    "datetime": datetime_of,
}


def type_of(values):
    if not values:
        return "empty"
    for kind, read in READERS.items():
        if all(read(value) is not None for value in values):
            return kind
    return "text"


def shortened(text):
    return text if len(text) <= 200 else text[:200] + "…"


def ranking(counter, limit=None):
    ordered = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    return [{"value": shortened(text), "count": count} for text, count in ordered[:limit]]


def outliers_of(numbers, q1, q3):
    largest = sys.float_info.max
    reach = min(1.5 * (q3 - q1), largest)
    low, high = max(q1 - reach, -largest), min(q3 + reach, largest)
    beyond = [number for number in numbers if number < low or number > high]
    distance = {number: low - number if number < low else number - high for number in beyond}
    examples = sorted(distance, key=lambda number: (-distance[number], number))[:5]
    return {"count": len(beyond), "lower_fence": low, "upper_fence": high, "examples": examples}


def numeric_part(numbers):
    if len(numbers) > 1:
        q1, median, q3 = statistics.quantiles(numbers, n=4, method="inclusive")
    else:
        q1 = median = q3 = numbers[0]
    return {
        "mean": math.fsum(numbers) / len(numbers),
        "standard_deviation": statistics.stdev(numbers) if len(numbers) > 1 else None,
        "q1": q1,
        "median": median,
        "q3": q3,
        "outliers": outliers_of(numbers, q1, q3),
    }


def profile(name, cells):
    trimmed = [cell.strip(WHITE_SPACE) for cell in cells]
    missing = [text for text in trimmed if text in NULL_TOKENS]
    values = [text for text in trimmed if text not in NULL_TOKENS]
    kind = type_of(values)
    result = {
        "name": name,
        "type": kind,
        "rows": len(trimmed),
        "nulls": len(missing),
        "null_tokens": ranking(collections.Counter(missing)),
        "distinct": len(set(values)),
        "min": None,
        "max": None,
        "mean": None,
        "standard_deviation": None,
        "q1": None,
        "median": None,
        "q3": None,
        "top_values": ranking(collections.Counter(values), 5),
        "outliers": None,
        "lengths": None,
    }
    if kind in ("integer", "float"):
        exact = [READERS[kind](value) for value in values]
        result.update(numeric_part([float(number) for number in exact]))
        result.update(min=min(exact), max=max(exact))
    elif kind in ("date", "datetime"):
        moments = sorted((READERS[kind](value), value) for value in values)
        result.update(min=shortened(moments[0][1]), max=shortened(moments[-1][1]))
    elif kind == "text":
        lengths = [len(value) for value in values]
        mean = sum(lengths) / len(lengths)
        result.update(min=shortened(min(values)), max=shortened(max(values)))
        result["lengths"] = {"min": min(lengths), "max": max(lengths), "mean": mean}
    return result


def column_names(record):
    wanted = [
        shortened(cell.strip(WHITE_SPACE)) or f"column_{position}"
        for position, cell in enumerate(record, 1)
    ]
    names = []
    for name in wanted:
        unique, number = name, 2
        while unique in names or (unique != name and unique in wanted):
            unique, number = f"{name}_{number}", number + 1
        names.append(unique)
    return names


def close(ours, theirs):
    """The comparison rule for numbers that are not counts."""
    if abs(ours - theirs) <= 1e-9 * max(abs(ours), abs(theirs)):
        return True
    return min(abs(ours), abs(theirs)) < 1e-3 and abs(ours - theirs) <= 1e-12


def main():
    parser = argparse.ArgumentParser(description="Profile the columns of a CSV file.")
    parser.add_argument("file")
    parser.add_argument("--delimiter", default=",")
    parser.add_argument("--encoding", default="utf-8-sig")
    arguments = parser.parse_args()
    csv.field_size_limit(2**31 - 1)
    with open(arguments.file, encoding=arguments.encoding, newline="") as file:
        records = [record for record in csv.reader(file, delimiter=arguments.delimiter) if record]
    if len(records) < 2:
        sys.exit("error: the file has no records below its header")
    header, rows = records[0], records[1:]
    for position, row in enumerate(rows, 1):
        if len(row) != len(header):
            sys.exit(f"error: record {position} has {len(row)} fields, not {len(header)}")
    columns = [
        profile(name, [row[index] for row in rows])
        for index, name in enumerate(column_names(header))
    ]
    json.dump({"rows": len(rows), "columns": columns}, sys.stdout, ensure_ascii=False, indent=1)
    print()


if __name__ == "__main__":
    main()
