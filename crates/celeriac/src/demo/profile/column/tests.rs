use super::*;

fn profile(values: &[&str]) -> ColumnProfile {
    ColumnProfile::compute("column", values.iter().copied(), &mut |_| {})
}

fn assert_close(left: Option<f64>, right: f64) {
    let left = left.expect("the statistic is present");
    assert!((left - right).abs() <= 1e-12 * right.abs(), "{left} is not {right}");
}

fn listed(counts: &[ValueCount]) -> Vec<(&str, usize)> {
    counts.iter().map(|entry| (entry.value.as_str(), entry.count)).collect()
}

#[test]
fn infers_the_type_all_values_share() {
    for (values, kind) in [
        (&["1", " -2 ", "+3", "NA"][..], ColumnKind::Integer),
        (&["1", "2.5", "1e3"], ColumnKind::Float),
        (&["1,5", "2,5"], ColumnKind::Text),
        (&["007", "12"], ColumnKind::Text),
        (&["12345678901234567890"], ColumnKind::Text),
        (&["true", "No", "YES"], ColumnKind::Boolean),
        (&["0", "1"], ColumnKind::Integer),
        (&["true", "1"], ColumnKind::Text),
        (&["2024-02-29", "2024/03/01"], ColumnKind::Date),
        (&["2023-02-29"], ColumnKind::Text),
        (&["03/04/2024"], ColumnKind::Text),
        (&["2024-02-29T10:00Z", "2024-02-29 10:00:30.5"], ColumnKind::Datetime),
        (&["2024-02-29", "2024-02-29T10:00"], ColumnKind::Text),
        (&["", "  ", "null"], ColumnKind::Empty),
        (&[], ColumnKind::Empty),
    ] {
        assert_eq!(profile(values).kind, kind, "{values:?}");
    }
}

#[test]
fn counts_nulls_by_token() {
    let column = profile(&["NA", " ", "", "x", "na", "NA", "-", "-1", "None", "NA "]);
    assert_eq!((column.rows, column.nulls, column.present()), (10, 7, 3));
    assert_eq!(listed(&column.null_tokens), [("NA", 3), ("", 2), ("-", 1), ("None", 1)]);
    assert_eq!(column.distinct, 3);
    assert!(NULL_TOKENS.iter().all(|token| profile(&[token]).nulls == 1));
}

#[test]
fn computes_the_statistics_of_numbers() {
    let column = profile(&["4", "1", "NA", "3", "2", "1000"]);
    assert_eq!(column.min, Some(Scalar::Integer(1)));
    assert_eq!(column.max, Some(Scalar::Integer(1000)));
    assert_close(column.mean, 202.0);
    // statistics.stdev([4, 1, 3, 2, 1000]) in Python 3.11.
    assert_close(column.standard_deviation, 446.096_962_554_106_6);
    assert_eq!((column.q1, column.median, column.q3), (Some(2.0), Some(3.0), Some(4.0)));
    let outliers = column.outliers.expect("numbers have fences");
    assert_eq!((outliers.count, outliers.examples), (1, vec![1000.0]));
    assert_eq!(column.lengths, None);
}

#[test]
fn lists_the_furthest_outliers_first() {
    let middle = ["10", "11", "12", "13", "14"].repeat(20);
    let far = ["-50", "90", "90", "200", "-200", "60", "70"];
    let column = profile(&[&middle[..], &far].concat());
    let outliers = column.outliers.expect("numbers have fences");
    assert_eq!(outliers.count, 7);
    assert_eq!(outliers.examples, [-200.0, 200.0, 90.0, -50.0, 70.0]);
}

#[test]
fn leaves_out_what_one_value_cannot_tell() {
    let column = profile(&["2.5"]);
    assert_eq!(column.standard_deviation, None);
    assert_eq!((column.q1, column.median, column.q3), (Some(2.5), Some(2.5), Some(2.5)));
    assert_eq!(column.min, Some(Scalar::Float(2.5)));
    let empty = profile(&["NA"]);
    assert_eq!((empty.min, empty.mean, empty.outliers), (None, None, None));
}

#[test]
fn orders_times_by_moment_and_texts_by_code_point() {
    let column = profile(&["2024-01-01T00:30+02:00", "2023-12-31T23:00Z"]);
    assert_eq!(column.min, Some(Scalar::Text("2024-01-01T00:30+02:00".to_owned())));
    assert_eq!(column.max, Some(Scalar::Text("2023-12-31T23:00Z".to_owned())));
    let column = profile(&["b", "É", "Z", "ab"]);
    assert_eq!(column.min, Some(Scalar::Text("Z".to_owned())));
    assert_eq!(column.max, Some(Scalar::Text("É".to_owned())));
    assert_eq!(column.lengths, Some(TextLengths { min: 1, max: 2, mean: 1.25 }));
}

#[test]
fn ranks_by_count_then_text_and_cuts_long_texts() {
    let long = "é".repeat(VALUE_CHARS_MAX + 1);
    let mut values = vec!["f", "e", "d", "d", "b", "a"];
    values.extend([long.as_str(); 3]);
    let column = profile(&values);
    let shown = format!("{}…", "é".repeat(VALUE_CHARS_MAX));
    assert_eq!(
        listed(&column.top_values),
        [(shown.as_str(), 3), ("d", 2), ("a", 1), ("b", 1), ("e", 1)]
    );
    assert_eq!(column.max, Some(Scalar::Text(shown.clone())));
    assert_eq!(column.lengths.expect("a text column").max, VALUE_CHARS_MAX + 1);
}

#[test]
fn does_not_depend_on_the_order_of_rows() {
    let values: Vec<String> =
        (0..1000).map(|n| format!("{:.3}", f64::from(n).sin() * 1e6)).collect();
    let forward: Vec<&str> = values.iter().map(String::as_str).collect();
    let backward: Vec<&str> = values.iter().rev().map(String::as_str).collect();
    assert_eq!(profile(&forward), profile(&backward));
}

#[test]
fn reports_progress_in_steps_and_at_the_end() {
    let mut calls = Vec::new();
    let values = vec!["x"; PROGRESS_ROWS * 2 + 1];
    ColumnProfile::compute("column", values.into_iter(), &mut |rows| calls.push(rows));
    assert_eq!(calls, [PROGRESS_ROWS, PROGRESS_ROWS * 2, PROGRESS_ROWS * 2 + 1]);
}
