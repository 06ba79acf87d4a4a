//! `/api/v1`: what the command line does, over HTTP. A route says in its documentation which role it
//! wants, and stands in the group of that role; a test compares the two.

mod dead;
mod fire;
mod limits;
mod queues;
mod schedules;
mod send;
mod tasks;
mod workers;

use crate::access::{Gate, Role, require};
use crate::metrics;
use crate::problem::Problem;
use crate::schema::ProblemDocument;
use crate::server::{Shared, openapi};
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use std::sync::Arc;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi as _};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Where the document is.
pub(crate) const DOCUMENT: &str = "/api/v1/openapi.json";
/// The most entries of one page.
const PAGE_MAX: usize = 500;
/// The entries of a page that is told no number.
const PAGE: usize = 50;

type Part = OpenApiRouter<Arc<Shared>>;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "celeriac",
        description = "Send, look at, cancel and retry tasks; queues, limits, schedules, dead letters, workers.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    components(schemas(ProblemDocument)),
    modifiers(&Tokens),
    tags(
        (name = "tasks", description = "Tasks"),
        (name = "queues", description = "Queues"),
        (name = "limits", description = "Limits and pauses"),
        (name = "schedules", description = "Entries of the schedule, which a beat or another scheduler runs"),
        (name = "dead", description = "Dead letters"),
        (name = "workers", description = "Workers, Celery's included"),
        (name = "observe", description = "Numbers")
    )
)]
struct Api;

struct Tokens;

impl Modify for Tokens {
    fn modify(&self, api: &mut OpenApi) {
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("`celeriac token create` makes one"))
            .build();
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(token));
    }
}

/// The routes of each role.
fn groups() -> [(Role, Part); 3] {
    let viewer = OpenApiRouter::new()
        .routes(routes!(workers::status))
        .routes(routes!(tasks::list))
        .routes(routes!(tasks::show))
        .routes(routes!(tasks::result))
        .routes(routes!(queues::list))
        .routes(routes!(queues::show))
        .routes(routes!(queues::messages))
        .routes(routes!(limits::pauses))
        .routes(routes!(limits::list))
        .routes(routes!(schedules::list))
        .routes(routes!(schedules::show))
        .routes(routes!(schedules::next))
        .routes(routes!(schedules::history))
        .routes(routes!(dead::list))
        .routes(routes!(dead::show))
        .routes(routes!(workers::list))
        .routes(routes!(workers::inspect));
    let operator = OpenApiRouter::new()
        .routes(routes!(send::send))
        .routes(routes!(tasks::cancel))
        .routes(routes!(tasks::retry))
        .routes(routes!(queues::pause))
        .routes(routes!(queues::resume))
        .routes(routes!(limits::pause))
        .routes(routes!(limits::resume))
        .routes(routes!(limits::set))
        .routes(routes!(limits::remove))
        .routes(routes!(schedules::add))
        .routes(routes!(schedules::replace, schedules::change, schedules::remove))
        .routes(routes!(schedules::pause))
        .routes(routes!(schedules::resume))
        .routes(routes!(fire::run))
        .routes(routes!(fire::fire))
        .routes(routes!(fire::give))
        .routes(routes!(dead::edit))
        .routes(routes!(dead::replay));
    let admin = OpenApiRouter::new()
        .routes(routes!(queues::purge))
        .routes(routes!(dead::discard))
        .routes(routes!(workers::control));
    [(Role::Viewer, viewer), (Role::Operator, operator), (Role::Admin, admin)]
}

/// All routes with their guards, and the document that describes them.
pub(crate) fn router(shared: &Arc<Shared>) -> (Router<Arc<Shared>>, OpenApi) {
    let guard = |least| from_fn_with_state(Gate { shared: Arc::clone(shared), least }, require);
    let mut parts = OpenApiRouter::with_openapi(Api::openapi());
    for (role, part) in groups() {
        parts = parts.merge(part.route_layer(guard(role)));
    }
    let mut observed: Part = OpenApiRouter::new().routes(routes!(metrics::metrics));
    if !shared.options.public_metrics {
        observed = observed.route_layer(guard(Role::Viewer));
    }
    let (router, api) = parts.merge(observed).split_for_parts();
    let api = complete(api, &shared.options.version);
    let text: Arc<str> = api.to_json().unwrap_or_default().into();
    (router.route(DOCUMENT, get(openapi).with_state(text)), api)
}

/// The document without a server, for its page.
pub(crate) fn document(version: &str) -> OpenApi {
    let mut parts = OpenApiRouter::with_openapi(Api::openapi());
    for (_, part) in groups() {
        parts = parts.merge(part);
    }
    let observed: Part = OpenApiRouter::new().routes(routes!(metrics::metrics));
    complete(parts.merge(observed).into_openapi(), version)
}

/// Adds what every operation may answer.
fn complete(mut api: OpenApi, version: &str) -> OpenApi {
    version.clone_into(&mut api.info.version);
    for item in api.paths.paths.values_mut() {
        let operations =
            [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            // Handlers of different things have the same name; ids are for the whole document.
            let tag = operation.tags.iter().flatten().next().cloned().unwrap_or_default();
            let id = operation.operation_id.take().unwrap_or_default();
            operation.operation_id = Some(format!("{tag}_{id}"));
            operation.responses.responses.insert("default".to_owned(), RefOr::T(problem()));
        }
    }
    api
}

fn problem() -> Response {
    let schema = Ref::from_schema_name("Problem");
    ResponseBuilder::new()
        .description("A problem (RFC 9457)")
        .content("application/problem+json", ContentBuilder::new().schema(Some(schema)).build())
        .build()
}

/// The page that a cursor and a limit ask for.
fn page(cursor: Option<&str>, limit: Option<usize>) -> Result<celeriac_core::store::Page, Problem> {
    let after = match cursor {
        None => 0,
        Some(cursor) => {
            cursor.parse::<i64>().ok().filter(|after| *after >= 0).ok_or_else(|| {
                Problem::bad_request(format!("cursor {cursor:?} is none of ours"))
                    .hint("give `next` of the page before, or leave it out")
            })?
        }
    };
    Ok(celeriac_core::store::Page { after, count_max: bounded(limit, PAGE, PAGE_MAX)? })
}

fn bounded(limit: Option<usize>, default: usize, max: usize) -> Result<usize, Problem> {
    match limit.unwrap_or(default) {
        limit if (1..=max).contains(&limit) => Ok(limit),
        limit => Err(Problem::bad_request(format!("limit is {limit}; it is 1 to {max}"))),
    }
}
