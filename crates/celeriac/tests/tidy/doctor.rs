//! `docs/reference/doctor.md`: the codes of findings.

use super::{check_page, files, root};
use celeriac_core::doctor::CODES;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The first part of the page; the table of codes follows.
const HEAD: &str = "# Doctor

What `celeriac doctor` finds, by code. A code keeps its meaning for ever; scripts go by it, not by texts.
Written from the program; a test keeps it true.
How to use it: [operate](../guides/operate.md#when-something-is-wrong).

| part of a code | what was looked at |
|---|---|
| `D-APP` | the application: its settings, tasks, routes, schedule |
| `D-BROKER` | the store: the way there, its settings, what waits in it |
| `D-CODE` | Python files, which are read and not run; tests are left out |
| `D-ENV` | `.env` files and the environment |
| `D-FILE` | compose files, scripts, Procfiles |

An *error* does not work; a *warning* can lose, double, delay or hide work; a *note* is worth knowing.
`--strict` exits with 1 when there is an error or a warning.
A trap is one of the seeds' mistakes, as their requirements number them.

";

#[test]
fn the_page_of_the_codes_is_true() {
    let mut page = String::from(HEAD);
    page.push_str("| code | severity | why it matters | trap |\n|---|---|---|---|\n");
    for code in CODES {
        let _infallible = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            code.name,
            code.severity,
            code.why,
            code.traps.join(", ")
        );
    }
    check_page(&root().join("docs/reference/doctor.md"), &page);
}

/// Codes in quotes, in sources beside the table itself.
fn used() -> BTreeSet<String> {
    let mut sources = files(&root().join("crates"), ".rs");
    sources.retain(|path| {
        !path.ends_with("doctor/codes.rs") && !path.to_string_lossy().contains("/tests")
    });
    sources.extend(files(&root().join("python/celeriac_child"), ".py"));
    let texts = sources.iter().map(|path| std::fs::read_to_string(path).unwrap());
    let quoted = |text: String| {
        let parts: Vec<String> = text.split('"').map(str::to_owned).collect();
        parts.into_iter().filter(|part| {
            part.starts_with("D-") && part.chars().all(|c| c.is_ascii_uppercase() || c == '-')
        })
    };
    texts.flat_map(quoted).collect()
}

#[test]
fn every_code_is_found_by_somebody_and_every_finding_has_a_code() {
    let known: BTreeSet<String> = CODES.iter().map(|code| code.name.to_owned()).collect();
    assert_eq!(used(), known);
}

/// The traps that the doctor has to find in the seeds' code.
#[test]
fn every_trap_has_a_code() {
    let wanted = [1, 5, 7, 9, 11, 12, 30, 33, 35, 36, 37, 40, 41, 42, 43, 44, 45, 65];
    let wanted: BTreeSet<String> = wanted.iter().map(|number| format!("T-{number:02}")).collect();
    let found: BTreeSet<String> =
        CODES.iter().flat_map(|code| code.traps).map(|trap| (*trap).to_owned()).collect();
    assert_eq!(found, wanted);
}
