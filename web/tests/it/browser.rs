//! A browser without a screen: keeps its cookie, fills the forms that are on the pages, follows where it is sent.

use std::collections::BTreeMap;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, header};
use freshet_core::connector::Registry;
use freshet_core::testing::Bench;
use tower::ServiceExt;

pub struct Browser<'a> {
    bench: &'a Bench,
    router: axum::Router,
    pub cookie: String,
    /// The cookie of a sign-in that is on its way to an issuer.
    pub attempt: String,
}

pub struct Page {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Page {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The hidden fields and values of the page's form with this action.
    pub fn form(&self, action: &str) -> BTreeMap<String, String> {
        let start = self.text.find(&format!("action=\"{action}\""));
        let start = start.unwrap_or_else(|| panic!("no form for {action} in {}", self.text));
        let form = self.text[start..].split("</form>").next().unwrap();
        let attribute = |tag: &str, name: &str| {
            tag.split(&format!(" {name}=\"")).nth(1).map(|rest| rest.split('"').next().unwrap().to_owned())
        };
        let inputs = form.split("<input").skip(1).map(|tag| tag.split('>').next().unwrap());
        inputs.filter_map(|tag| Some((attribute(tag, "name")?, attribute(tag, "value").unwrap_or_default()))).collect()
    }
}

pub async fn bench(settings: &[(&str, &str)]) -> Bench {
    Bench::with(freshet_worker::register(Registry::default()), settings).await
}

impl<'a> Browser<'a> {
    pub fn new(bench: &'a Bench) -> Self {
        Self { bench, router: freshet_web::router(bench.app.clone()), cookie: String::new(), attempt: String::new() }
    }

    /// The pages' router, for who asks it what it answers.
    pub fn router(&self) -> &axum::Router {
        &self.router
    }

    pub async fn get(&mut self, path: &str) -> Page {
        self.send("GET", path, &[], &[]).await
    }

    /// Fills the form with this action on the page and sends it.
    pub async fn fill(&mut self, page: &Page, action: &str, typed: &[(&str, &str)]) -> Page {
        let mut fields = page.form(action);
        for (name, value) in typed {
            assert!(fields.insert((*name).to_owned(), (*value).to_owned()).is_some(), "the form has no field {name}");
        }
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.send("POST", action, &fields, &[("sec-fetch-site", "same-origin")]).await
    }

    pub async fn send(&mut self, method: &str, path: &str, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Page {
        let mut request = Request::builder().method(method).uri(path);
        for cookie in [&self.cookie, &self.attempt].into_iter().filter(|cookie| !cookie.is_empty()) {
            request = request.header(header::COOKIE, cookie);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body =
            fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect::<Vec<_>>().join("&");
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let request = request.body(Body::from(body)).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        for cookie in parts.headers.get_all(header::SET_COOKIE) {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let place = if pair.contains("fr_o=") { &mut self.attempt } else { &mut self.cookie };
            *place = if pair.ends_with('=') { String::new() } else { pair.to_owned() };
        }
        let text = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap();
        Page { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    /// The first person of the installation, signed in.
    pub async fn set_up(&mut self) {
        let word = freshet_core::user::ops::draw_set_up_word(&self.bench.app, false).await.unwrap().unwrap();
        let page = self.get("/set-up").await;
        let typed = [
            ("word", word.expose()),
            ("email", "ada@acme.example"),
            ("name", "Ada"),
            ("password", PASSWORD),
            ("organization", "Lovelace & Co"),
        ];
        let done = self.fill(&page, "/set-up", &typed).await;
        assert_eq!((done.status, done.header("location")), (303, "/"), "{}", done.text);
    }
}

pub const PASSWORD: &str = "violet tractor mumbling 9";

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
