//! What the compiler says when `#[task]` is used wrongly. The words are in `tests/ui/*.stderr`;
//! `TRYBUILD=overwrite cargo t ui` writes them anew.

#[test]
fn macro_errors() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ui/*.rs"));
}
