use super::super::table::{Table, TableLimits};
use super::*;

const PENGUINS: &[u8] = include_bytes!("../../../../data/penguins-raw.csv");

fn report(file: &str, bytes: &[u8]) -> Report {
    let table = Table::read(bytes, &TableLimits::default()).expect("the bytes are a table");
    let columns = table
        .header
        .iter()
        .enumerate()
        .map(|(index, name)| ColumnProfile::compute(name, table.column(index), &mut |_| {}));
    Report {
        file: file.to_owned(),
        bytes: bytes.len() as u64,
        columns: columns.collect(),
        encoding: table.encoding,
        delimiter: table.delimiter,
        rows: table.rows,
        facts: vec![("Wall <time>".to_owned(), "1 & 2".to_owned())],
    }
}

#[test]
fn profiles_the_penguins() {
    let report = report("penguins-raw.csv", PENGUINS);
    assert_eq!((report.rows, report.columns.len()), (344, 17));
    let kinds: Vec<&str> = report.columns.iter().map(|column| column.kind.as_str()).collect();
    assert_eq!(
        kinds.join(" "),
        "text integer text text text text text boolean date float float integer integer text \
         float float text"
    );
    let mass = &report.columns[12];
    assert_eq!((mass.name.as_str(), mass.nulls, mass.distinct), ("Body Mass (g)", 2, 94));
    assert_eq!((mass.q1, mass.median, mass.q3), (Some(3550.0), Some(4050.0), Some(4750.0)));
    assert!((mass.mean.expect("a numeric column") / (1_437_000.0 / 342.0) - 1.0).abs() < 1e-12);
}

#[test]
fn escapes_every_text_of_the_file() {
    let bytes = b"<script>alert(1)</script>,\"x\"\" onload=\"\"y\"\n<img src=x>,'&'\n<b>,2\n";
    let html = report("<i>.csv", bytes).to_html();
    for raw in ["<script", "<img", "<b>,", "<i>.csv", "\" onload", "Wall <time>"] {
        assert!(!html.contains(raw), "{raw} is not escaped");
    }
    for escaped in [
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "&lt;img src=x&gt;",
        "x&quot; onload=&quot;y",
        "<title>&lt;i&gt;.csv",
        "Wall &lt;time&gt;",
        "<bdi>1 &amp; 2</bdi>",
    ] {
        assert!(html.contains(escaped), "{escaped} is missing");
    }
}

#[test]
fn page_needs_nothing_from_outside() {
    let html = report("penguins-raw.csv", PENGUINS).to_html();
    for outside in ["http:", "https:", "url(", "@import", "<link", "<script", "<img", "src="] {
        assert!(!html.contains(outside), "{outside} in the page");
    }
    assert!(html.contains("default-src 'none'"));
    assert!(!html.contains("NaN") && !html.contains("inf%"));
}

#[test]
fn page_tags_are_balanced() {
    let html = report("penguins-raw.csv", PENGUINS).to_html();
    for tag in [
        "section", "article", "table", "tr", "td", "th", "dl", "div", "dd", "span", "svg", "ul",
        "li", "a", "p", "i", "b", "bdi", "small", "main", "footer", "header", "code",
    ] {
        let opened =
            html.matches(&format!("<{tag} ")).count() + html.matches(&format!("<{tag}>")).count();
        assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn shows_columns_without_values_and_with_one() {
    let html = report("few.csv", b"empty,one,same\n,1.5,5\nNA,,5\n").to_html();
    assert!(html.contains("No values at all"));
    assert!(html.contains("empty cell"));
    assert!(html.contains("The same value everywhere"));
    assert!(!html.contains("NaN"));
}
