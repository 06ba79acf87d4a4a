//! An application: its settings, its tasks and their shared states.

use crate::beat::BeatBuilder;
use crate::client::{Client, Shared, Teller};
use crate::config::Settings;
use crate::context::States;
use crate::handler::{Surroundings, TaskDef};
use crate::hooks::{Hooks, Intercept, Signal};
use crate::remote::Remote;
use crate::schedule::{Entry, Schedules};
use crate::worker::WorkerBuilder;
use crate::{Result, TaskError};
use celeriac_core::exchange::{Binding, ExchangeKind};
use celeriac_core::priority::Level;
use celeriac_core::route::Router;
use celeriac_core::seal::{PayloadCodec, Seals};
use celeriac_core::store::Store;
use celeriac_core::{Clock, Entropy, QueueName};
use celeriac_runtime::pool::Launch;
use celeriac_runtime::{OsEntropy, Registry, SystemClock};
use celeriac_stores::Resources;
use celeriac_wire::Map;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// An application: settings, tasks and states. Clients and workers are made from it.
#[derive(Clone, Debug)]
pub struct App {
    settings: Arc<Settings>,
    #[cfg_attr(
        not(all(target_os = "linux", feature = "cli")),
        allow(dead_code, reason = "apps are run by the command line, on Linux")
    )]
    program: Vec<(&'static str, String)>,
    tasks: Vec<TaskDef>,
    entries: Vec<Entry>,
    /// What runs of tasks have beside what their entries say, by the tasks' names.
    task_options: Arc<BTreeMap<String, Map>>,
    states: States,
    hooks: Arc<Hooks>,
    seals: Arc<Seals>,
    /// How children of this application are started; known once it has passed `enter_child`.
    launch: Option<Launch>,
    store: Arc<OnceCell<Arc<dyn Store>>>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl App {
    /// An application whose settings come from `celeriac.toml`, `.env` and the environment.
    ///
    /// # Errors
    /// A setting that cannot be used; the text says which, where it stands and what is accepted.
    pub fn from_env() -> Result<Self> {
        Ok(Self::with_settings(Settings::load(Vec::new(), Vec::new(), None)?))
    }

    /// An application on the store at `url`, with defaults for everything else: nothing is read
    /// from files or the environment, unless it is given the command line with [`App::run`], where
    /// files, environment and flags go before `url`.
    ///
    /// # Errors
    /// Never today; the URL is looked at when the store is opened.
    pub fn at(url: &str) -> Result<Self> {
        let program = vec![("broker_url", url.to_owned())];
        let inputs =
            crate::config::Inputs { program: program.clone(), ..crate::config::Inputs::default() };
        Ok(Self { program, ..Self::with_settings(Settings::resolve(inputs)?) })
    }

    /// An application with these settings.
    pub fn with_settings(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            program: Vec::new(),
            tasks: Vec::new(),
            entries: Vec::new(),
            task_options: Arc::default(),
            states: States::default(),
            hooks: Arc::default(),
            seals: Arc::default(),
            launch: None,
            store: Arc::default(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
        }
    }

    /// Registers tasks: `app.tasks(tasks![add, report])`.
    pub fn tasks(mut self, tasks: impl IntoIterator<Item = TaskDef>) -> Self {
        self.tasks.extend(tasks);
        self
    }

    /// Gives a value to all tasks that want `State<T>`; a second one of the type replaces the first.
    pub fn state<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.states.insert(value);
        self
    }

    /// Gives a value that is made where tasks run: once in each child of a process pool, once in a
    /// worker that runs tasks itself, never in a program that only sends. For connections, models
    /// and whatever else cannot be handed to another process.
    ///
    /// `make` may block, and may start tasks of the async runtime. When it fails the child does not
    /// start; three failures in a row end a worker that never had a child.
    pub fn state_with<T, F>(mut self, make: F) -> Self
    where
        T: Send + Sync + 'static,
        F: Fn() -> Result<T> + Send + Sync + 'static,
    {
        self.states.insert_with(make);
        self
    }

    /// Has a function hear of something: `app.on(|failure: TaskFailure| async move { … })`. What it is told
    /// is what its parameter says; the types are in [`crate::hooks`].
    ///
    /// Hooks of one application run one after another, in the order in which things happened, beside the
    /// tasks. What they are told of the end of a task is written already. Each has 10 s; a panic ends that
    /// call alone. When 1,000 notices wait, the worker fetches nothing new until hooks have caught up.
    pub fn on<S: Signal, F, W>(mut self, hook: F) -> Self
    where
        F: Fn(S) -> W + Send + Sync + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        Arc::make_mut(&mut self.hooks).observe(hook);
        self
    }

    /// Has a function decide: before a call is sent it may change its headers or refuse it, before a task
    /// runs it may hold it up.
    ///
    /// ```
    /// use celeriac::hooks::{BeforeTaskPublish, TaskPrerun};
    /// use celeriac::prelude::*;
    ///
    /// # fn closed() -> bool { true }
    /// # fn app() -> celeriac::Result<App> {
    /// let app = App::at("memory://")?
    ///     .intercept(|call: BeforeTaskPublish| async move { Ok(call.with_header("region", "eu")) })
    ///     .intercept(|run: TaskPrerun| async move {
    ///         if run.task.header("region") == Some("eu") && closed() {
    ///             return Err(TaskError::snooze(10.mins())); // or ignore, fail, reject, retry_in
    ///         }
    ///         Ok(())
    ///     });
    /// # Ok(app)
    /// # }
    /// ```
    ///
    /// Interceptors of a kind are asked in the order they were given; the first that returns an error
    /// decides. For a run the error means what it means in the task's body. One that does not decide within
    /// 10 s counts as a failure that is retried.
    pub fn intercept<S: Intercept, F, W>(mut self, hook: F) -> Self
    where
        F: Fn(S) -> W + Send + Sync + 'static,
        W: Future<Output = Result<S::Decision>> + Send + 'static,
    {
        Arc::make_mut(&mut self.hooks).intercept(hook);
        self
    }

    /// Seals what is sent and opens what comes: see [`crate::seal`]. The first codec that seals is used for
    /// everything that this application sends; all of them open. Native tasks only: a Python app opens its
    /// own messages.
    pub fn payload_codec(mut self, codec: impl PayloadCodec + 'static) -> Self {
        Arc::make_mut(&mut self.seals).add(Arc::new(codec));
        self
    }

    /// Refuses messages that no codec of the application has opened: they become dead letters.
    pub fn refuse_plain_payloads(mut self) -> Self {
        Arc::make_mut(&mut self.seals).refuse_plain();
        self
    }

    pub(crate) fn hooks(&self) -> &Arc<Hooks> {
        &self.hooks
    }

    /// The same application on a store in memory, at a time and with randomness of its own.
    #[cfg(feature = "sqlite")]
    pub(crate) fn for_test(mut self, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        self.settings = Arc::new((*self.settings).clone().with_broker("memory://"));
        self.store = Arc::default();
        (self.clock, self.entropy) = (clock, entropy);
        self
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What the program itself asked for.
    #[cfg(feature = "cli")]
    pub(crate) fn program_settings(&self) -> Vec<(&'static str, String)> {
        self.program.clone()
    }

    #[cfg(feature = "cli")]
    pub(crate) fn replace_settings(mut self, settings: Settings) -> Self {
        self.settings = Arc::new(settings);
        self
    }

    /// What runs of tasks have beside what their entries say, by the tasks' names.
    #[cfg(all(target_os = "linux", feature = "cli"))]
    pub(crate) fn with_task_options(mut self, options: BTreeMap<String, Map>) -> Self {
        self.task_options = Arc::new(options);
        self
    }

    pub(crate) fn with_launch(mut self, launch: Launch) -> Self {
        self.launch = Some(launch);
        self
    }

    pub(crate) fn launch(&self) -> Option<&Launch> {
        self.launch.as_ref()
    }

    /// The same application as a child of a worker.
    pub(crate) fn in_child(mut self, url: &str, node: &str) -> Self {
        let mut settings = (*self.settings).clone().with_broker(url);
        node.clone_into(&mut settings.node_name.value);
        self.settings = Arc::new(settings);
        self.store = Arc::default();
        self
    }

    /// The same tasks on a store of its own, with the demo's tasks and state.
    #[cfg(feature = "cli")]
    pub(crate) fn on_own_store(mut self, settings: Settings) -> Self {
        self.settings = Arc::new(settings);
        self.store = Arc::default();
        self.tasks = crate::demo::task_defs();
        self.state(crate::demo::Tables::default())
    }

    pub(crate) fn task_defs(&self) -> &[TaskDef] {
        &self.tasks
    }

    /// The states, each made once in this process.
    pub(crate) async fn made_states(&self) -> Result<States> {
        let states = self.states.clone();
        // Constructors may block, and may want to block on the runtime.
        match tokio::task::spawn_blocking(move || states.made()).await {
            Ok(made) => made,
            Err(error) => Err(TaskError::fail(format!("a state cannot be made: {error}"))),
        }
    }

    /// The states as they were given, for a worker that runs no task itself.
    pub(crate) fn given_states(&self) -> States {
        self.states.clone()
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(crate) fn entropy(&self) -> &Arc<dyn Entropy> {
        &self.entropy
    }

    /// Opens the store once; later calls get the same.
    ///
    /// # Errors
    /// The store cannot be opened; the text says why.
    pub async fn store(&self) -> Result<Arc<dyn Store>> {
        let store = self.store.get_or_try_init(|| async { self.connect() }).await?;
        Ok(Arc::clone(store))
    }

    /// Opens a further connection to the store, or shares the first where there is only one.
    pub(crate) async fn own_connection(&self) -> Result<Arc<dyn Store>> {
        let store = self.store().await?;
        if store.capabilities().shared_between_processes { self.connect() } else { Ok(store) }
    }

    fn connect(&self) -> Result<Arc<dyn Store>> {
        let results = self.settings.results_beside();
        self.connect_to(&self.settings.broker_url.value, results)
    }

    /// Opens any store, with this application's limits.
    pub(crate) fn connect_to(&self, url: &str, results: Option<String>) -> Result<Arc<dyn Store>> {
        Ok(celeriac_stores::connect(url, Resources { results, ..self.resources() })?)
    }

    /// What a store needs of this process.
    pub(crate) fn resources(&self) -> Resources {
        Resources {
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            limits: self.settings.limits(),
            results: None,
        }
    }

    /// A client that sends calls.
    ///
    /// # Errors
    /// The store cannot be opened, or a route is malformed.
    pub async fn client(&self) -> Result<Client> {
        let shared = Shared {
            router: Arc::new(self.bound_router().await?),
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            hooks: Arc::clone(&self.hooks),
            task_options: Arc::clone(&self.task_options),
            seals: Arc::clone(&self.seals),
            origin: format!("gen{}@{}", std::process::id(), self.host()),
            teller: self.settings.sent_events.value.then(|| Teller {
                zone: jiff::tz::TimeZone::system(),
                lamport: celeriac_core::Lamport::default(),
            }),
        };
        Ok(Client::new(self.store().await?, shared))
    }

    /// Remote control of the workers.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub async fn remote(&self) -> Result<Remote> {
        let (clock, entropy) = (Arc::clone(&self.clock), Arc::clone(&self.entropy));
        Ok(Remote::new(self.store().await?, clock, entropy))
    }

    pub(crate) fn host(&self) -> &str {
        let name = self.settings.node_name.value.as_str();
        name.split_once('@').map_or(name, |(_, host)| host)
    }

    /// Makes an entry part of the application: its beats take it over when they start. What is changed in
    /// the store later (paused, edited) stays as it is there.
    pub fn schedule(mut self, entry: Entry) -> Self {
        self.entries.push(entry);
        self
    }

    /// The entries that are part of the application.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// A beat of this application, to be configured further and run.
    pub fn beat(&self) -> BeatBuilder {
        BeatBuilder::new(self.clone())
    }

    /// The schedule in the store.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub async fn schedules(&self) -> Result<Schedules> {
        Ok(Schedules::new(self.client().await?))
    }

    /// A worker of this application, to be configured further and run.
    pub fn worker(&self) -> WorkerBuilder {
        WorkerBuilder::new(self.clone())
    }

    /// Where calls go: the routes of the settings, then the tasks' own queues, then the default.
    pub(crate) fn router(&self) -> Result<Router> {
        let mut router = self.settings.router()?;
        router.set_default_level(self.settings.priority_levels.value.then_some(Level::Normal));
        for task in &self.tasks {
            if let Some(queue) = &task.options().queue {
                let route = router.matching(task.name()).cloned().unwrap_or_default();
                router.add_route(task.name(), route.or_queue(&QueueName::parse(queue)?))?;
            }
        }
        Ok(router)
    }

    /// Where calls go on the store in use: exchanges are declared there, or refused.
    pub(crate) async fn bound_router(&self) -> Result<Router> {
        let mut router = self.router()?;
        let store = self.store().await?;
        let able = store.capabilities();
        router.allow_exchanges(able.exchanges);
        let needed = |one: &&Binding| match one.kind {
            // A queue of a direct exchange is reached by its name everywhere.
            ExchangeKind::Direct => able.exchanges,
            ExchangeKind::Topic => true,
            // Where it reaches listeners only, it can be sent to; a worker that consumes it is refused.
            ExchangeKind::Fanout => !able.exchanges || able.fanout_queues,
        };
        store.bind(router.bindings().filter(needed).cloned().collect()).await?;
        Ok(router)
    }

    /// The tasks as the worker runs them; a missing state is found here.
    pub(crate) async fn registry(&self, states: States) -> Result<Registry> {
        let client = self.client().await?;
        let (states, hooks) = (Arc::new(states), Arc::clone(&self.hooks));
        let around = Surroundings { states, client, hooks };
        let mut registry = Registry::default();
        registry.set_accept(self.settings.accept_content.value);
        registry.set_seals((*self.seals).clone());
        for task in &self.tasks {
            for (id, name) in task.requirements().iter() {
                if !self.states.has(id) {
                    let task = task.name();
                    return Err(TaskError::fail(format!(
                        "task {task} wants State<{name}>, which the application does not give; \
                         add .state(…) before the worker starts"
                    )));
                }
            }
            let mut policy = task.options().policy.clone();
            policy.soft_time_limit = policy.soft_time_limit.or(self.settings.soft_time_limit.value);
            policy.time_limit = policy.time_limit.or(self.settings.time_limit.value);
            policy.result_extended = self.settings.result_extended.value;
            if let Some(additions) = self.settings.tasks().of(task.name()) {
                additions.add_to(&mut policy);
            }
            registry.add(task.handler(around.clone(), policy))?;
        }
        registry.add_builtins()?;
        Ok(registry)
    }

    /// The queues of a worker that is told none: the configured ones, or every queue that this
    /// application can send to, so that a routed task is not left waiting for ever (T-37).
    pub(crate) fn worker_queues(&self) -> Result<Vec<QueueName>> {
        if !self.settings.queues.is_default() {
            return self
                .settings
                .queues
                .value
                .iter()
                .map(|name| Ok(QueueName::parse(name)?))
                .collect();
        }
        let mut names = vec![self.settings.default_queue.value.clone()];
        let routed = self.settings.routes.value.iter().filter_map(|(_, route)| route.queue());
        names.extend(routed.map(|queue| queue.to_string()));
        names.extend(self.settings.task_queues.value.iter().map(|one| one.queue.to_string()));
        names.extend(self.tasks.iter().filter_map(|task| task.options().queue.clone()));
        let mut queues: Vec<QueueName> = Vec::new();
        for name in names {
            let queue = QueueName::parse(&name)?;
            if !queues.contains(&queue) {
                queues.push(queue);
            }
        }
        Ok(queues)
    }
}
