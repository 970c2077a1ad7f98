//! Signing in: address and password, then the second factor; proving it again; signing out.

use askama::Template;
use axum::Router;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use freshet_core::error::{Code, Error};
use freshet_core::settings::SignUp;
use freshet_core::sso::Door;
use freshet_core::sso::sign_in::doors_of_person;
use freshet_core::{identity, session, user};
use serde::Deserialize;

use super::{Hidden, Next, again, error, page};
use crate::Web;
use crate::layout::Trouble;
use crate::visitor::{self, From, Here, enter, local, query};

pub(super) fn routes() -> Router<Web> {
    Router::new()
        .route("/sign-in", get(show).post(sign_in))
        .route("/second-factor", get(show_code).post(give_code))
        .route("/prove", get(show_proof).post(prove))
        .route("/sign-out", post(sign_out))
}

#[derive(Template)]
#[template(path = "pages/sign_in/page.html")]
struct Page<'a> {
    trouble: Option<Trouble>,
    email: &'a str,
    next: &'a str,
    may_sign_up: bool,
}

#[derive(Deserialize)]
struct Typed {
    #[serde(default)]
    email: String,
    #[serde(default)]
    password: Hidden,
    next: Option<String>,
}

fn may_sign_up(web: &Web) -> bool {
    web.app.settings.sign_up == SignUp::Open
}

async fn show(State(web): State<Web>, Query(next): Query<Next>) -> Response {
    let next = local(next.next.as_deref());
    page(StatusCode::OK, &Page { trouble: None, email: "", next, may_sign_up: may_sign_up(&web) })
}

async fn sign_in(State(web): State<Web>, From(origin, ip): From, Form(typed): Form<Typed>) -> Response {
    let next = local(typed.next.as_deref());
    let begun = match web.doors.knock(ip) {
        Ok(()) => session::ops::sign_in(&web.app, &typed.email, &typed.password.0, &origin).await,
        Err(error) => Err(error),
    };
    match begun {
        Ok(begun) => enter(&web, &begun, next),
        Err(error) if error.code == Code::SsoRequired => {
            let (email, next) = (query(&typed.email), query(next));
            Redirect::to(&format!("/sso?email={email}&next={next}")).into_response()
        }
        Err(error) => again(error, |trouble| Page {
            trouble: Some(trouble),
            email: &typed.email,
            next,
            may_sign_up: may_sign_up(&web),
        }),
    }
}

#[derive(Template)]
#[template(path = "pages/sign_in/code.html")]
struct CodePage<'a> {
    trouble: Option<Trouble>,
    next: &'a str,
}

#[derive(Deserialize)]
struct TypedCode {
    #[serde(default)]
    code: Hidden,
    next: Option<String>,
}

async fn show_code(State(web): State<Web>, headers: HeaderMap, Query(next): Query<Next>) -> Response {
    match session::ops::is_pending(&web.app, &visitor::token(&web, &headers)).await {
        Ok(true) => page(StatusCode::OK, &CodePage { trouble: None, next: local(next.next.as_deref()) }),
        Ok(false) => Redirect::to("/sign-in").into_response(),
        Err(error) => error::page(&error),
    }
}

async fn give_code(
    State(web): State<Web>,
    From(origin, ip): From,
    headers: HeaderMap,
    Form(typed): Form<TypedCode>,
) -> Response {
    let next = local(typed.next.as_deref());
    let begun = match web.doors.knock(ip) {
        Ok(()) => {
            let token = visitor::token(&web, &headers);
            session::ops::give_code(&web.app, &token, typed.code.0.expose(), &origin).await
        }
        Err(error) => Err(error),
    };
    match begun {
        Ok(begun) => enter(&web, &begun, next),
        Err(error) => again(error, |trouble| CodePage { trouble: Some(trouble), next }),
    }
}

#[derive(Template)]
#[template(path = "pages/sign_in/prove.html")]
struct ProofPage<'a> {
    trouble: Option<Trouble>,
    next: &'a str,
    has_password: bool,
    has_second_factor: bool,
    doors: Vec<Door>,
    form_token: &'a str,
}

#[derive(Deserialize)]
struct TypedProof {
    #[serde(default)]
    proof: Hidden,
    #[serde(default)]
    form_token: String,
    next: Option<String>,
}

async fn show_proof(State(web): State<Web>, here: Here, Query(next): Query<Next>) -> Response {
    proof_page(&web, &here, local(next.next.as_deref()), None).await
}

async fn proof_page(web: &Web, here: &Here, next: &str, wrong: Option<Error>) -> Response {
    let read = async {
        let person = user::ops::get(&web.app, here.known.user).await?;
        // Somebody else's issuer proves nothing about the person themselves.
        let by_issuer =
            here.known.confined_to.is_none() && !identity::ops::list(&web.app, here.known.user).await?.is_empty();
        let doors = if by_issuer { doors_of_person(&web.app, here.known.user).await? } else { Vec::new() };
        Ok::<_, Error>((person, doors))
    };
    let (person, doors) = match read.await {
        Ok(read) => read,
        Err(error) => return error::page(&error),
    };
    let (has_password, has_second_factor) = (person.has_password, person.has_second_factor);
    let form =
        |trouble| ProofPage { trouble, next, has_password, has_second_factor, doors, form_token: &here.form_token };
    match wrong {
        None => page(StatusCode::OK, &form(None)),
        Some(wrong) => again(wrong, |trouble| form(Some(trouble))),
    }
}

async fn prove(State(web): State<Web>, here: Here, From(_, ip): From, Form(typed): Form<TypedProof>) -> Response {
    let next = local(typed.next.as_deref());
    let proved = match here.check(&typed.form_token).and_then(|()| web.doors.knock(ip)) {
        Ok(()) => session::ops::prove_again(&web.app, &here.known, &typed.proof.0).await,
        Err(error) => Err(error),
    };
    match proved {
        Ok(token) => {
            let mut response = Redirect::to(next).into_response();
            visitor::keep(&web, &mut response, &token);
            response
        }
        Err(error) => proof_page(&web, &here, next, Some(error)).await,
    }
}

#[derive(Deserialize)]
struct Leaving {
    #[serde(default)]
    form_token: String,
}

async fn sign_out(State(web): State<Web>, here: Here, Form(leaving): Form<Leaving>) -> Response {
    if let Err(error) = here.check(&leaving.form_token) {
        return error::page(&error);
    }
    if let Err(error) = session::ops::revoke(&web.app, here.known.user, here.known.session).await {
        return error::page(&error);
    }
    let mut response = Redirect::to("/sign-in").into_response();
    visitor::forget(&web, &mut response);
    response
}
