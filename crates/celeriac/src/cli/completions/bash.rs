//! bash. Unlike clap's own adapter it takes the whole line: bash splits words at `:`, `=` and `@`, so that
//! neither a URL nor a worker's name would reach the program in one piece.

use clap::Command;
use clap_complete::engine;
use clap_complete::env::EnvCompleter;
use std::ffi::OsString;
use std::io::{Error, Write};
use std::path::Path;

/// Gets the line up to the cursor, and the part of its last word that bash will replace.
const SCRIPT: &str = r#"_FUNCTION() {
    local IFS=$'\n'
    COMPREPLY=($(VARIABLE=bash COMPLETER -- "${COMP_LINE:0:COMP_POINT}" "$2" 2>/dev/null))
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/,:] ]]; then
        compopt -o nospace 2>/dev/null
    fi
    return 0
}
complete -o bashdefault -F _FUNCTION BIN
"#;

#[derive(Clone, Copy, Debug)]
pub(super) struct Bash;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == "bash"
    }

    fn write_registration(
        &self,
        var: &str,
        name: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn Write,
    ) -> Result<(), Error> {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let function: String = name.chars().map(plain).chain("_complete".chars()).collect();
        let script = SCRIPT
            .replace("FUNCTION", &function)
            .replace("VARIABLE", var)
            .replace("BIN", &quoted(bin))
            .replace("COMPLETER", &quoted(completer));
        buf.write_all(script.as_bytes())
    }

    fn write_complete(
        &self,
        cmd: &mut Command,
        args: Vec<OsString>,
        current_dir: Option<&Path>,
        buf: &mut dyn Write,
    ) -> Result<(), Error> {
        let words = words_of(&args);
        let current = words.last().cloned().unwrap_or_default();
        let replaced = args.get(1).map(|word| word.to_string_lossy()).unwrap_or_default();
        // bash keeps what stands before the part that it replaces.
        let kept = current.strip_suffix(&*replaced).unwrap_or_default();
        let index = words.len().saturating_sub(1);
        let words = words.iter().map(OsString::from).collect();
        for candidate in engine::complete(cmd, words, index, current_dir)? {
            let value = candidate.get_value().to_string_lossy();
            // Options are for those who begin one: else they would bury the names.
            if value.starts_with('-') && !current.starts_with('-') {
                continue;
            }
            writeln!(buf, "{}", value.strip_prefix(kept).unwrap_or(&value))?;
        }
        Ok(())
    }
}

/// The words of the line in a call of [`SCRIPT`]; the last one is being written, and may be empty.
pub(super) fn words_of(given: &[OsString]) -> Vec<String> {
    split(&given.first().map(|line| line.to_string_lossy()).unwrap_or_default())
}

/// Splits a line as bash does where nothing is expanded. A quote that is open ends with the line.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = line.trim_start().chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None | Some('"'), '\\') => word.extend(chars.next()),
            (None, ' ' | '\t' | '\n') => {
                // Several blanks in a row end one word.
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => word.push(c),
        }
    }
    words.push(word);
    words
}

fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_as_bash_splits_it() {
        for (line, words) in [
            ("celeriac ", vec!["celeriac", ""]),
            ("celeriac  -b redis://h:1/0 queue", vec!["celeriac", "-b", "redis://h:1/0", "queue"]),
            (r#"c -b 'a b'"c d"\ e x"#, vec!["c", "-b", "a bc d e", "x"]),
            (r#"c "a \" 'b"#, vec!["c", "a \" 'b"]),
            ("c -d a@h,b@", vec!["c", "-d", "a@h,b@"]),
        ] {
            assert_eq!(split(line), words, "{line}");
        }
    }

    #[test]
    fn a_path_with_a_blank_is_quoted_in_the_script() {
        let mut script = Vec::new();
        Bash.write_registration("V", "my-app.x", "my-app.x", "/a b/it's", &mut script).unwrap();
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains(r"$(V=bash '/a b/it'\''s' -- "), "{script}");
        assert!(
            script.contains("complete -o bashdefault -F _my_app_x_complete my-app.x\n"),
            "{script}"
        );
    }
}
