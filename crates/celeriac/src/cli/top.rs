//! `celeriac top`: queues, workers and running tasks, live.

mod draw;
mod state;

use super::Session;
use super::exit::Failed;
use crate::remote::Ask;
use celeriac_core::event::hours_west;
use celeriac_core::store::{EventStream, Store, TaskFilter};
use celeriac_core::{Clock, StoreError};
use celeriac_wire::{Event, Map};
use clap::Args;
use jiff::tz::TimeZone;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyEvent, KeyModifiers};
use state::{Look, Sort, Top};
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

const EXAMPLES: &str = "Examples:
  celeriac top
  celeriac top --interval 250ms
  celeriac top --once | head -20
  celeriac top --json | jq '.queues[] | select(.ready > 1000)'

Keys: q quits; n, r, s, l, d sort queues by name, ready, scheduled, leased, dead letters.
Workers of Celery are shown when they send events (-E) or heartbeats; what they run, with -E only.";

/// The shortest time between two looks: each one reads every queue.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The most running tasks that are read at a look.
const RUNNING_MAX: usize = 200;
/// The most keys, looks and events that wait to be shown.
const NEWS_MAX: usize = 64;
/// The pause before a failed stream of events is asked again.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TopArgs {
    /// The time between two looks
    #[arg(short, long, value_name = "TIME", default_value = "1s")]
    interval: String,
    /// Print what can be seen after one interval as text, and end; --json does so as well
    #[arg(long)]
    once: bool,
}

/// What the screen has to take note of.
enum News {
    Key(KeyEvent),
    Resized,
    Looked(Look),
    Heard(Vec<Event>),
    /// The store does not answer.
    Trouble(StoreError),
    /// The process was told to end.
    Stop,
}

pub(super) async fn run(session: &Session, args: TopArgs) -> Result<ExitCode, Failed> {
    let interval = super::call::duration("--interval", &args.interval)?;
    if interval < INTERVAL_MIN {
        return Err(Failed::usage("--interval: at least 100ms"));
    }
    let once = args.once || session.output.is_json();
    let on_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if !once && !on_terminal {
        return Err(Failed::usage("top needs a terminal")
            .hint("print what it shows with --once, or with --json for programs"));
    }
    let store = session.app.store().await?;
    let stream = store.watch_events().await?;
    // Workers show themselves, as for every new monitor (celery 5.7.0 events/receiver.py).
    session.app.remote().await?.cast("heartbeat", Map::new(), &Ask::default()).await?;
    let clock = Arc::clone(session.app.clock());
    let top = Top::new(hours_west(&TimeZone::system(), clock.wall()));
    if once {
        print_once(session, &*store, stream, top, interval).await?;
    } else {
        show(store, stream, clock, top, interval).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything that the store knows now.
async fn look(store: &dyn Store, clock: &dyn Clock) -> Result<Look, StoreError> {
    let filter = TaskFilter {
        state: Some("running".to_owned()),
        count_max: RUNNING_MAX,
        ..TaskFilter::default()
    };
    Ok(Look {
        queues: store.queues().await?,
        nodes: store.nodes().await?,
        running: store.tasks(&filter).await?.views,
        pauses: store.pauses().await?,
        location: store.location(),
        at: clock.wall(),
    })
}

/// Looks, listens for an interval, looks again, and prints.
async fn print_once(
    session: &Session,
    store: &dyn Store,
    mut stream: Box<dyn EventStream>,
    mut top: Top,
    interval: Duration,
) -> Result<(), Failed> {
    let clock = &**session.app.clock();
    let end = Instant::now() + interval;
    top.looked(look(store, clock).await?);
    while let Ok(events) = tokio::time::timeout_at(end, stream.next()).await {
        for event in events? {
            top.heard(&event, clock.wall());
        }
    }
    let look = look(store, clock).await?;
    let now = look.at;
    top.looked(look);
    if session.output.is_json() {
        session.output.value(&top.document(now));
        return Ok(());
    }
    session.output.line(top.head(now).join("\n"));
    for section in top.sections(now) {
        session.output.line(format!("\n{}", section.title));
        let rows = section.rows.into_iter().map(|cells| (cells, celeriac_wire::Value::Null));
        session.output.list(section.header, rows.collect(), section.empty);
    }
    Ok(())
}

/// Takes the terminal, and gives it back whatever happens.
async fn show(
    store: Arc<dyn Store>,
    stream: Box<dyn EventStream>,
    clock: Arc<dyn Clock>,
    top: Top,
    interval: Duration,
) -> Result<(), Failed> {
    let (tell, news) = mpsc::channel(NEWS_MAX);
    tokio::spawn(keep_looking(store, Arc::clone(&clock), interval, tell.clone()));
    tokio::spawn(keep_listening(stream, tell.clone()));
    tokio::spawn(wait_for_signal(tell.clone())?);
    let mut terminal = ratatui::try_init()?;
    std::thread::spawn(move || read_keys(&tell));
    let shown = follow(&mut terminal, news, &*clock, top).await;
    ratatui::restore();
    shown
}

async fn follow(
    terminal: &mut DefaultTerminal,
    mut news: mpsc::Receiver<News>,
    clock: &dyn Clock,
    mut top: Top,
) -> Result<(), Failed> {
    terminal.draw(|frame| draw::draw(frame, &top, clock.wall()))?;
    while let Some(one) = news.recv().await {
        match one {
            News::Key(key) => match act(key) {
                Act::Quit => break,
                Act::Sort(sort) => top.sort_by(sort),
                Act::Nothing => continue,
            },
            News::Heard(events) => {
                for event in &events {
                    top.heard(event, clock.wall());
                }
                // A busy broker must not have the screen drawn for each event: the next look does it.
                continue;
            }
            News::Looked(look) => top.looked(look),
            News::Trouble(error) => top.failed(&error),
            News::Resized => {}
            News::Stop => break,
        }
        terminal.draw(|frame| draw::draw(frame, &top, clock.wall()))?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Act {
    Quit,
    Sort(Sort),
    Nothing,
}

fn act(key: KeyEvent) -> Act {
    match key.code {
        KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => Act::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Act::Quit,
        KeyCode::Char('n') => Act::Sort(Sort::Name),
        KeyCode::Char('r') => Act::Sort(Sort::Ready),
        KeyCode::Char('s') => Act::Sort(Sort::Scheduled),
        KeyCode::Char('l') => Act::Sort(Sort::Leased),
        KeyCode::Char('d') => Act::Sort(Sort::Dead),
        _ => Act::Nothing,
    }
}

async fn keep_looking(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    interval: Duration,
    tell: mpsc::Sender<News>,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let news = look(&*store, &*clock).await.map_or_else(News::Trouble, News::Looked);
        if tell.send(news).await.is_err() {
            return;
        }
    }
}

async fn keep_listening(mut stream: Box<dyn EventStream>, tell: mpsc::Sender<News>) {
    loop {
        match stream.next().await {
            Ok(events) => {
                if tell.send(News::Heard(events)).await.is_err() {
                    return;
                }
            }
            // The looks say what is wrong with the store.
            Err(_missed) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// `TERM` and `HUP` end it like `q`; `INT` is a key while the terminal is raw.
fn wait_for_signal(tell: mpsc::Sender<News>) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ended = tell.send(News::Stop).await;
    })
}

/// Reads the terminal until it is gone or nobody listens; the process ends without waiting for it.
fn read_keys(tell: &mpsc::Sender<News>) {
    loop {
        let news = match event::read() {
            Ok(Input::Key(key)) if key.is_press() => News::Key(key),
            Ok(Input::Resize(..)) => News::Resized,
            Ok(_) => continue,
            Err(_gone) => News::Stop,
        };
        let last = matches!(news, News::Stop);
        if tell.blocking_send(news).is_err() || last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_quit_and_sort() {
        let plain = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE);
        assert_eq!(act(plain('q')), Act::Quit);
        assert_eq!(act(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Act::Quit);
        assert_eq!(act(plain('d')), Act::Sort(Sort::Dead));
        assert_eq!(act(plain('x')), Act::Nothing);
    }
}
