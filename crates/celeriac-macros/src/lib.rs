//! The `#[task]` attribute of celeriac; use it as `celeriac::task`.
//!
//! The function stays as it is. Beside it, in the type namespace, stands a struct of the same name
//! that implements `celeriac::Task` and makes calls: `add(2, 3).await` runs it here, `add::call(2,
//! 3)` makes a call to send. Tested here by its parts, and in `tests/ui` by the compiler.

mod expand;
mod function;
mod options;

use proc_macro::TokenStream;

/// Makes a task of an async function.
///
/// Options, all optional: `name = "tasks.add"` (on the wire), `queue = "math"`, `max_retries = 5`
/// or `"forever"`, `backoff = "2s..10m"`, `jitter = false`, `retry_schedule = ["60s", "5m"]`,
/// `retry_delay = "3m"`, `soft_time_limit = "50s"`, `time_limit = "60s"`, `ignore_result`,
/// `priority = "high"`, `expires = "1h"`, `accept_any_result`, and `remote` for a task whose body
/// lives in another program.
///
/// Parameters are the arguments of a call, bound as Python binds them. `Option<T>` and
/// `#[default(…)]` may be left out. `Context`, `State<T>` and parameters with `#[inject]` come from
/// the worker.
#[proc_macro_attribute]
pub fn task(attribute: TokenStream, item: TokenStream) -> TokenStream {
    expand::task(attribute.into(), item.into())
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
