//! Every setting: its key, its environment names, its default and what it does.

use std::fmt::Write as _;

/// One setting.
pub(super) struct Key {
    /// The key in `celeriac.toml`; the flag is the same with dashes.
    pub(super) name: &'static str,
    /// Environment names besides `CELERIAC_<KEY>`, strongest first.
    pub(super) env: &'static [&'static str],
    /// The default as it would be written.
    pub(super) default: fn() -> String,
    /// What it does.
    pub(super) effect: &'static str,
}

macro_rules! keys {
    ($($name:literal [$($env:literal),*] $default:expr; $effect:literal)*) => {
        /// All settings, in the order in which they are shown.
        pub(super) const KEYS: &[Key] = &[$(Key {
            name: $name,
            env: &[$($env),*],
            default: || ($default).to_string(),
            effect: $effect,
        }),*];
    };
}

keys! {
    "broker_url" ["CELERY_BROKER_URL", "REDIS_URL"] "sqlite://celeriac.db";
        "the store that moves messages; `REDIS_URL` counts only if nothing else names one"
    "result_backend" ["CELERY_RESULT_BACKEND"] "";
        "where results are kept: the broker's URL, or another database of its Redis server"
    "default_queue" ["CELERY_TASK_DEFAULT_QUEUE"] "celery";
        "the queue of calls that match no route"
    "default_exchange" ["CELERY_TASK_DEFAULT_EXCHANGE"] "";
        "the exchange of the default queue, if it has one; needs a store with exchanges"
    "default_exchange_type" ["CELERY_TASK_DEFAULT_EXCHANGE_TYPE"] "direct";
        "how that exchange chooses queues: direct, topic or fanout"
    "default_routing_key" ["CELERY_TASK_DEFAULT_ROUTING_KEY"] "";
        "the key that the default queue is bound with; its own name if not set"
    "task_serializer" ["CELERY_TASK_SERIALIZER"] "json";
        "how bodies are written: json, msgpack or yaml"
    "task_compression" ["CELERY_TASK_COMPRESSION"] "";
        "how bodies are compressed: gzip, bzip2, lzma, brotli, zstd"
    "accept_content" ["CELERY_ACCEPT_CONTENT"] "json,msgpack,yaml";
        "which bodies native tasks accept; others become dead letters"
    "queues" [] "";
        "what a worker consumes"
    "concurrency" ["CELERY_WORKER_CONCURRENCY", "CELERY_CONCURRENCY"] cpus();
        "how many tasks a worker runs at once"
    "autoscale" [] "";
        "the most and the fewest slots, such as 10,3: a worker starts with the fewest, doubles them while all are busy, and lets go what it does not use; instead of `concurrency`"
    "autoscale_keepalive" ["AUTOSCALE_KEEPALIVE"] "30s";
        "with `autoscale`: for how long it must be quiet before slots go"
    "grace" [] "30s";
        "how long running tasks may finish after TERM"
    "soft_time_limit" ["CELERY_TASK_SOFT_TIME_LIMIT"] "";
        "after this time a task without its own limit is told to stop"
    "time_limit" ["CELERY_TASK_TIME_LIMIT"] "";
        "after this time a task without its own limit is stopped and fails"
    "pool" [] "async";
        "where tasks run: async, or process (Celery's prefork)"
    "python_pool" [] "prefork";
        "how the tasks of a Celery application run: prefork, solo, threads, asyncio or gevent"
    "start_method" [] "fork";
        "how processes of a Celery application begin: fork, or spawn, where each loads the application itself"
    "python" [] "";
        "the Python that runs a Celery application; if not set, that of `VIRTUAL_ENV`, of `.venv` in this folder, of the environment that celeriac is installed in, or the first on the `PATH`"
    "max_tasks_per_child" [] "";
        "a child of the process pool ends after so many tasks"
    "max_memory_per_child" [] "";
        "a child that holds more memory ends after its task"
    "child_memory_max" [] "";
        "a child that holds more memory is killed, which counts against its task; Linux only"
    "child_oom_score_adj" [] "500";
        "what the kernel adds to a child's chance to be killed when memory runs out; -1000 to 1000"
    "unknown_tasks" [] "park";
        "messages of a task that a worker does not have: park (they wait for one that has it) or dead-letter"
    "task_events" [] "true";
        "records task events for history and monitors"
    "sent_events" ["CELERY_TASK_SEND_SENT_EVENT"] "false";
        "tells monitors what clients and tasks send (Celery's `task_send_sent_event`)"
    "remote_control" ["CELERY_WORKER_ENABLE_REMOTE_CONTROL"] "true";
        "workers answer `inspect` and `control`"
    "mingle" [] "true";
        "a worker that starts among stock workers takes over what they have revoked"
    "heartbeat_events" [] "2s";
        "how often a worker tells monitors that it lives; 0 sends no events of workers"
    "log_level" [] "info";
        "what is logged"
    "log_format" [] "text";
        "how log lines are written: text or json"
    "node_name" [] "celery@%h";
        "the worker's name"
    "lease_expiry" [] "8s";
        "how long a silent worker keeps its messages"
    "strict_early_ack" [] "false";
        "a task that is acknowledged early begins only once that is written: no death of a worker runs it twice"
    "priority_levels" [] "false";
        "sends calls without a level at level normal"
    "result_expires" [] "1d";
        "how long results are kept; 0 for ever"
    "chord_expires" [] "";
        "a chord in which no member has ended for this long fails, its missing members are lost; 0 waits for ever [default: 23/24 of result_expires]"
    "result_extended" ["CELERY_RESULT_EXTENDED"] "false";
        "results say what their task was called with, where it ran and how often it was retried"
    "message_bytes_max" [] "16MiB";
        "larger messages are refused at the publisher"
    "result_bytes_max" [] "16MiB";
        "larger results make their task fail"
    "queue_depth_max" [] "10000000";
        "messages in one queue; more are refused at the publisher"
    "dead_letters_max" [] "1000000";
        "dead letters kept in the store; past it workers write them to `dead_spill`"
    "dead_bytes_max" [] "4GiB";
        "bytes of dead letters kept in the store; past it workers write them to `dead_spill`"
    "dead_expires" [] "";
        "older dead letters move from the store to `dead_spill`"
    "dead_spill" [] "celeriac-dead.jsonl";
        "the file for dead letters that the store has no room for; empty: workers stop fetching instead"
    "events_max" [] "500000";
        "events kept; the oldest go first"
    "revoke_expires" [] "30d";
        "how long a revocation is remembered"
    "schedule_history" [] "100";
        "occurrences kept of each entry of a schedule, 1 at least; the oldest go first"
    "schedule_history_expires" [] "30d";
        "how long an occurrence is kept at most"
    "http_bind" [] "127.0.0.1:8555";
        "where `celeriac serve` listens, and `celeriac up` without `http_worker`; `[http] bind`"
    "http_worker" [] "";
        "where a worker serves the same (`worker --http`, `up --http`); `[http] worker`"
    "http_auth" [] "token";
        "token, or none: then everybody may do everything, on a loopback address only; `[http] auth`"
    "http_tokens" [] "celeriac-tokens.json";
        "the file that `celeriac token` writes and servers read; `[http] tokens`"
    "http_hosts" [] "";
        "host names that requests may carry besides the loopback ones; on other addresses any, if not set; `[http] hosts`"
    "http_public_metrics" [] "false";
        "gives `/metrics` to who has no token; `[http] public_metrics`"
    "http_probes_port" ["PORT"] "";
        "the port on which a worker without `http_worker` answers probes, on every address; 0 for none; `PORT` counts in the environment only, not in `.env`; `[http] probes_port`"
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The page `docs/reference/settings.md`, kept true by a test.
pub fn reference_page() -> String {
    let mut page = String::from(
        "# Settings\n\nWritten by the program; a test keeps it true.\n\n\
         Precedence, later wins: defaults, the program (`App::at`), `celeriac.toml`, a Celery app's \
         own, `.env`,\nenvironment, `[override]` in `celeriac.toml`, flags.\n\
         `celeriac config show` prints every value with its source.\n\
         Durations: `500ms`, `10s`, `5m`, `2h`, `1d`, a bare number is seconds.\n\
         Sizes: `16MiB`, `200MB`, a bare number is bytes.\n\
         Booleans: 1, 0, true, false, yes, no, on, off; anything else is an error.\n\n\
         | key | default | environment | effect |\n|---|---|---|---|\n",
    );
    for key in KEYS {
        let default = match key.name {
            "concurrency" => "the number of CPUs".to_owned(),
            "queues" => "every queue the application sends to".to_owned(),
            "result_backend" => "the broker's own store".to_owned(),
            _ => (key.default)(),
        };
        let default = if default.is_empty() { "none".to_owned() } else { default };
        let mut names = vec![format!("`CELERIAC_{}`", key.name.to_uppercase())];
        names.extend(key.env.iter().map(|name| format!("`{name}`")));
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            page,
            "| `{}` | {default} | {} | {} |",
            key.name,
            names.join(", "),
            key.effect
        );
    }
    page.push_str(
        "\n`[routes]` maps task names to queues: exact names first, then globs (`reports.*`) and \
         regular expressions (`/^etl\\./`) in order.\n\
         A route may be a table of options instead: `{ queue = \"heavy\", serializer = \"msgpack\" }`, \
         with queue, exchange, routing_key, priority, serializer, compression, expires, time_limit \
         and soft_time_limit; what a call says itself wins.\n\n\
         `[task_queues]` declares queues of exchanges: \
         `tq = { exchange = \"tx\", exchange_type = \"topic\", routing_key = \"a.#\" }`.\n",
    );
    page.push_str(&super::additions::reference());
    page.push_str(&super::celery::reference());
    page
}
