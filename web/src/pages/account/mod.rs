//! A person's account: name, password, second factor, sessions, tokens.

use askama::Template;
use axum::Router;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use freshet_core::api_key::KeyState;
use freshet_core::error::{Code, Error};
use freshet_core::id::{IdentityId, PersonalTokenId, SessionId, SsoConnectionId};
use freshet_core::identity::{self, Identity};
use freshet_core::personal_token::{self, PersonalToken};
use freshet_core::session::{self, Session};
use freshet_core::sso::Door;
use freshet_core::sso::sign_in::{Purpose, doors_of_person, start};
use freshet_core::user::{self, User};
use qrcode::QrCode;
use qrcode::render::svg;
use serde::Deserialize;

use super::{Hidden, again, error, page, sso};
use crate::Web;
use crate::layout::Trouble;
use crate::visitor::Here;

pub(super) fn routes() -> Router<Web> {
    Router::new()
        .route("/account", get(show))
        .route("/account/name", post(rename))
        .route("/account/password", post(change_password))
        .route("/account/sessions/{id}/end", post(end_session))
        .route("/account/sessions/end-others", post(end_others))
        .route("/account/second-factor", get(show_factor).post(confirm_factor))
        .route("/account/second-factor/remove", post(remove_factor))
        .route("/account/identities/{id}/unlink", post(unlink))
        .route("/account/identities/{connection}/link", post(link))
        .route("/account/tokens", post(make_token))
        .route("/account/tokens/{id}/revoke", post(revoke_token))
}

#[derive(Template)]
#[template(path = "pages/account/page.html")]
struct Page {
    trouble: Option<Trouble>,
    who: String,
    form_token: String,
    user: User,
    sessions: Vec<Session>,
    own: SessionId,
    tokens: Vec<PersonalToken>,
    identities: Vec<Identity>,
    doors: Vec<Door>,
    made: Option<String>,
}

#[derive(Template)]
#[template(path = "pages/account/factor.html")]
struct FactorPage {
    trouble: Option<Trouble>,
    who: String,
    form_token: String,
    secret: String,
    picture: String,
    codes: Vec<String>,
}

/// A change of the account: all of them are forms of the session's own pages.
#[derive(Deserialize)]
struct Change {
    #[serde(default)]
    form_token: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    days: String,
    #[serde(default)]
    password: Hidden,
    #[serde(default)]
    code: Hidden,
}

async fn show(State(web): State<Web>, here: Here) -> Response {
    account(&web, &here, None, None).await
}

/// The account, with what was wrong or what was made.
async fn account(web: &Web, here: &Here, wrong: Option<Error>, made: Option<String>) -> Response {
    let read = async {
        let user = user::ops::get(&web.app, here.known.user).await?;
        let sessions = session::ops::list(&web.app, here.known.user).await?;
        let tokens = personal_token::ops::list(&web.app, here.known.user).await?;
        let identities = identity::ops::list(&web.app, here.known.user).await?;
        let doors = doors_of_person(&web.app, here.known.user).await?;
        Ok::<_, Error>((user, sessions, tokens, identities, doors))
    };
    let (user, sessions, tokens, identities, doors) = match read.await {
        Ok(read) => read,
        Err(error) => return error::page(&error),
    };
    let form = |trouble| Page {
        trouble,
        who: user.name.clone(),
        form_token: here.form_token.clone(),
        user,
        sessions,
        own: here.known.session,
        tokens: tokens.into_iter().filter(|token| token.state == KeyState::Usable).collect(),
        identities,
        doors,
        made,
    };
    match wrong {
        None => page(StatusCode::OK, &form(None)),
        Some(wrong) => again(wrong, |trouble| form(Some(trouble))),
    }
}

/// Back to the account, or there with what was wrong; a proof that is too old is asked for.
async fn back(web: &Web, here: &Here, done: Result<(), Error>) -> Response {
    match done {
        Ok(()) => Redirect::to("/account").into_response(),
        Err(error) if error.code == Code::ProofTooOld => Redirect::to("/prove?next=/account").into_response(),
        Err(error) if error.code == Code::Forbidden => error::page(&error),
        Err(error) => account(web, here, Some(error), None).await,
    }
}

async fn rename(State(web): State<Web>, here: Here, Form(change): Form<Change>) -> Response {
    let done = async {
        here.check(&change.form_token)?;
        user::ops::rename(&web.app, here.known.user, &change.name).await.map(|_| ())
    };
    let done = done.await;
    back(&web, &here, done).await
}

async fn change_password(State(web): State<Web>, here: Here, Form(change): Form<Change>) -> Response {
    let done = async {
        here.check(&change.form_token)?;
        here.known.must_be_recent(&web.app)?;
        session::ops::change_password(&web.app, &here.known, &change.password.0).await
    };
    let done = done.await;
    back(&web, &here, done).await
}

async fn end_session(
    State(web): State<Web>,
    here: Here,
    Path(id): Path<SessionId>,
    Form(change): Form<Change>,
) -> Response {
    let done = async {
        here.check(&change.form_token)?;
        session::ops::revoke(&web.app, here.known.user, id).await
    };
    let done = done.await;
    back(&web, &here, done).await
}

async fn end_others(State(web): State<Web>, here: Here, Form(change): Form<Change>) -> Response {
    let done = async {
        here.check(&change.form_token)?;
        session::ops::revoke_others(&web.app, &here.known).await.map(|_| ())
    };
    let done = done.await;
    back(&web, &here, done).await
}

async fn show_factor(State(web): State<Web>, here: Here) -> Response {
    if here.known.must_be_recent(&web.app).is_err() {
        return Redirect::to("/prove?next=/account/second-factor").into_response();
    }
    factor(&web, &here, None).await
}

/// Draws a factor, and shows it; after a wrong code another, for the first was on the screen long enough.
async fn factor(web: &Web, here: &Here, wrong: Option<Error>) -> Response {
    let drawn = async {
        let who = user::ops::get(&web.app, here.known.user).await?.name;
        let new = user::ops::begin_second_factor(&web.app, here.known.user).await?;
        let code = QrCode::new(new.url.expose())
            .map_err(|error| Error::new(Code::Internal, "the QR code cannot be drawn").caused_by(error))?;
        let picture = code.render::<svg::Color<'_>>().min_dimensions(200, 200).build();
        // The declaration is for files; within a page it would be shown.
        let picture = picture.split_once("?>").map_or(picture.as_str(), |(_, rest)| rest).to_owned();
        Ok::<_, Error>((who, new.secret.expose().to_owned(), picture))
    };
    match drawn.await {
        Ok((who, secret, picture)) => {
            let form_token = here.form_token.clone();
            let form = |trouble| FactorPage { trouble, who, form_token, secret, picture, codes: Vec::new() };
            match wrong {
                None => page(StatusCode::OK, &form(None)),
                Some(wrong) => again(wrong, |trouble| form(Some(trouble))),
            }
        }
        Err(error) => back(web, here, Err(error)).await,
    }
}

async fn confirm_factor(State(web): State<Web>, here: Here, Form(change): Form<Change>) -> Response {
    let done = async {
        here.check(&change.form_token)?;
        here.known.must_be_recent(&web.app)?;
        user::ops::confirm_second_factor(&web.app, here.known.user, change.code.0.expose()).await
    };
    match done.await {
        Ok(codes) => {
            let (form_token, who) = (here.form_token.clone(), String::from("Your account"));
            let shown =
                FactorPage { trouble: None, who, form_token, secret: String::new(), picture: String::new(), codes };
            page(StatusCode::OK, &shown)
        }
        Err(error) if error.code == Code::CodeRefused => factor(&web, &here, Some(error)).await,
        Err(error) => back(&web, &here, Err(error)).await,
    }
}

async fn remove_factor(State(web): State<Web>, here: Here, Form(change): Form<Change>) -> Response {
    let done = async {
        here.check(&change.form_token)?;
        here.known.must_be_recent(&web.app)?;
        user::ops::remove_second_factor(&web.app, here.known.user).await
    };
    let done = done.await;
    back(&web, &here, done).await
}

async fn unlink(
    State(web): State<Web>,
    here: Here,
    Path(id): Path<IdentityId>,
    Form(change): Form<Change>,
) -> Response {
    let done = async {
        here.check(&change.form_token)?;
        here.known.must_be_recent(&web.app)?;
        identity::ops::unlink(&web.app, here.known.user, id).await
    };
    let done = done.await;
    back(&web, &here, done).await
}

async fn link(
    State(web): State<Web>,
    here: Here,
    Path(id): Path<SsoConnectionId>,
    Form(change): Form<Change>,
) -> Response {
    let started = async {
        here.check(&change.form_token)?;
        here.known.must_be_recent(&web.app)?;
        start(&web.app, id, Purpose::Link(&here.known), "/account").await
    };
    match started.await {
        Ok(started) => sso::leave(&web, &started),
        Err(error) => back(&web, &here, Err(error)).await,
    }
}

async fn make_token(State(web): State<Web>, here: Here, Form(change): Form<Change>) -> Response {
    let made = async {
        here.check(&change.form_token)?;
        here.known.must_be_recent(&web.app)?;
        let days = change.days.trim().parse();
        let days = days.map_err(|_| Error::invalid("/days", "must be a whole number of days"))?;
        personal_token::ops::create_in(&web.app, here.known.user, Some(here.known.session), &change.name, days).await
    };
    match made.await {
        Ok(made) => account(&web, &here, None, Some(made.text.expose().to_owned())).await,
        Err(error) => back(&web, &here, Err(error)).await,
    }
}

async fn revoke_token(
    State(web): State<Web>,
    here: Here,
    Path(id): Path<PersonalTokenId>,
    Form(change): Form<Change>,
) -> Response {
    let done = async {
        here.check(&change.form_token)?;
        personal_token::ops::revoke(&web.app, here.known.user, id).await
    };
    let done = done.await;
    back(&web, &here, done).await
}
