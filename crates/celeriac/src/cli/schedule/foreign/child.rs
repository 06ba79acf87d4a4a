//! Python reads what Python has pickled: an interpreter that is asked once, and ends.

use crate::cli::exit::Failed;
use crate::python::{BOOT_IMPORT, FILES};
use celeriac_wire::{Map, Value};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// The longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 30;
/// How long it may take: a large table over a slow line.
const PATIENCE: Duration = Duration::from_mins(10);

/// Has Python read what is asked for: the lines of its answer.
pub(super) async fn read(program: &Path, mut asked: Map) -> Result<Vec<Value>, Failed> {
    let files = FILES.iter().map(|(path, text)| (*path, Value::from(*text)));
    asked.insert("files", Value::Object(files.collect()));
    let asked = Value::Object(asked).to_string();
    let answer = tokio::time::timeout(PATIENCE, answer(program, asked.as_bytes())).await;
    let answer = answer.map_err(|_elapsed| {
        Failed::unavailable(format!("nothing was read within {} s", PATIENCE.as_secs()))
    })??;
    let mut lines = Vec::new();
    for line in answer.lines() {
        let line = Value::parse(line.as_bytes())
            .map_err(|error| Failed::internal(format!("Python cannot be understood: {error}")))?;
        if let Some(why) = line.get("failed").and_then(Value::as_str) {
            let is_away = line.get("away").and_then(Value::as_bool) == Some(true);
            let failed = if is_away { Failed::unavailable(why) } else { Failed::usage(why) };
            return Err(match line.get("hint").and_then(Value::as_str) {
                Some(hint) => failed.hint(hint),
                None => failed,
            });
        }
        lines.push(line);
    }
    Ok(lines)
}

/// What Python writes to its standard output; its errors go to ours.
async fn answer(program: &Path, asked: &[u8]) -> Result<String, Failed> {
    let shown = program.display();
    let mut command = Command::new(program);
    command.arg("-c").arg(BOOT_IMPORT).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        Failed::configuration(format!("cannot start {shown}: {error}"))
            .hint("name the Python of the app's environment with --python")
    })?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Failed::internal(format!("{shown} has no standard input or output")));
    };
    let ask = async move {
        // One that has ended already has said why.
        let _closed = stdin.write_all(asked).await;
    };
    let mut text = String::new();
    let mut stdout = stdout.take(ANSWER_BYTES_MAX);
    let ((), read) = tokio::join!(ask, stdout.read_to_string(&mut text));
    read.map_err(|error| Failed::internal(format!("read from {shown}: {error}")))?;
    let status = child.wait().await?;
    // Code 1 with a reason in the answer is an answer; otherwise its traceback was printed.
    if status.success() || text.contains("\"failed\"") {
        return Ok(text);
    }
    Err(Failed::internal(format!("{shown} ended with {status}; its words are above")))
}
